package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	streamv1 "github.com/slipway-paas/slipway/gen/slipway/stream/v1"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/events"
)

const (
	eventsPattern    = "GET /api/deploy/apps/{id}/events"
	orgEventsPattern = "GET /api/v1/events"
)

// writeTimeout is how long a client may take to accept one event.
const writeTimeout = 20 * time.Second

// events serves a deployment's own events as server-sent events.
func (d *door) events(w http.ResponseWriter, r *http.Request) {
	ctx, err := d.authorize(w, r, deployv1.DeployService_FollowDeploymentEvents_FullMethodName)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	after, err := resumeAfter(r)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	aggregate, err := d.deploy.owned(ctx, r.PathValue("id"))
	if err != nil {
		d.fail(w, r, err)
		return
	}
	d.stream(w, r.WithContext(ctx), deployv1.DeployService_FollowDeploymentEvents_FullMethodName, cloudevents.OneDeployment(aggregate), after)
}

// orgEvents serves the events of the caller's organization as server-sent events.
func (d *door) orgEvents(w http.ResponseWriter, r *http.Request) {
	ctx, err := d.authorize(w, r, streamv1.EventService_FollowEvents_FullMethodName)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	of, after, err := wanted(authn.Principal(ctx).GetOrgId(), r)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	d.stream(w, r.WithContext(ctx), streamv1.EventService_FollowEvents_FullMethodName, of, after)
}

// stream follows events for as long as what let the request in lets it.
func (d *door) stream(w http.ResponseWriter, r *http.Request, rpc string, of cloudevents.Selection, after uint64) {
	ctx, stop := d.guard.Watch(r.Context(), rpc, authn.FromHeader(r.Header))
	defer stop()
	sink := &sseSink{w: w, rc: http.NewResponseController(w)}
	if r.Method == http.MethodHead {
		sink.header()
		return
	}
	err := d.deploy.streams.Follow(ctx, authn.Principal(ctx).GetOperatorId(), of, after, sink)
	switch {
	case err == nil, errors.Is(err, events.ErrClosing), ctx.Err() != nil, errors.Is(err, errClientGone):
	case !sink.begun:
		d.fail(w, r, err)
	default:
		// The client resumes from its last id by itself.
		d.log.WarnContext(ctx, "an event stream broke", "org", of.Org, "error", err)
	}
}

// wanted reads which events a request is for, and after which sequence: Last-Event-ID
// before the parameter, for a browser's EventSource comes back to the same URL with it.
// Errors are *problem.Error: 400 for a query that cannot be read, 422.
func wanted(org string, r *http.Request) (cloudevents.Selection, uint64, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return cloudevents.Selection{}, 0, problem.Malformed("The query cannot be read; write it as type=DeploymentRunning&aggregate=deployment&after=0.")
	}
	of, err := cloudevents.Select(org, query["type"], query["aggregate"])
	var faults []problem.Field
	if err != nil {
		faults = problem.From(err).Fields
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains([]string{"type", "aggregate", "after"}, name) {
			faults = append(faults, problem.Field{Field: name, Message: "is no parameter of this; there are type, aggregate and after"})
			break
		}
	}
	after, fault := sequence("after", query["after"])
	faults = append(faults, fault...)
	if last := r.Header.Values("Last-Event-ID"); len(last) > 0 {
		after, fault = sequence("Last-Event-ID", last)
		faults = append(faults, fault...)
	}
	if len(faults) > 0 {
		return cloudevents.Selection{}, 0, problem.Validation(faults)
	}
	return of, after, nil
}

func sequence(field string, given []string) (uint64, []problem.Field) {
	if len(given) == 0 {
		return 0, nil
	}
	after, err := strconv.ParseUint(given[0], 10, 63)
	if err != nil || len(given) > 1 {
		return 0, []problem.Field{{Field: field, Message: "must be given once, as the id of an event: a whole number"}}
	}
	return after, nil
}

// resumeAfter is the sequence that the client has seen last; 0 for none.
func resumeAfter(r *http.Request) (uint64, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("last_event_id")
	}
	if text == "" {
		return 0, nil
	}
	after, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, problem.Malformed("Last-Event-ID must be the id of an event of this stream, a whole number.")
	}
	return after, nil
}

var errClientGone = errors.New("the client of an event stream is gone")

type sseSink struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	begun bool
}

func (s *sseSink) header() {
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	// Proxies that buffer would hold events back.
	h.Set("X-Accel-Buffering", "no")
	s.w.WriteHeader(http.StatusOK)
}

// Begin says at once that the stream is there, and after how many milliseconds to
// come back when it breaks.
func (s *sseSink) Begin() error {
	s.begun = true
	// The stream has no end that a deadline could be set for; each write has its own.
	if err := s.rc.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("keep an event stream open: %w", err)
	}
	s.header()
	return s.write([]byte("retry: 1000\n\n"))
}

func (s *sseSink) Send(e cloudevents.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write the event with sequence %d as JSON: %w", e.Sequence, err)
	}
	return s.write(fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", e.Sequence, e.Type, data))
}

// CaughtUp tells clients that want no more than what has happened to go.
func (s *sseSink) CaughtUp() error { return s.write([]byte(": caught up\n\n")) }

func (s *sseSink) Beat() error { return s.write([]byte(": still here\n\n")) }

func (s *sseSink) write(b []byte) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("bound a write: %w", err)
	}
	if _, err := s.w.Write(b); err != nil {
		return errors.Join(errClientGone, err)
	}
	if err := s.rc.Flush(); err != nil {
		return errors.Join(errClientGone, err)
	}
	return nil
}
