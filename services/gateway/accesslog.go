package gateway

import (
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "github.com/slipway-paas/slipway/gen/slipway/apps/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/requests"
	"github.com/slipway-paas/slipway/services/gateway/strictjson"
)

const accessLogPattern = "GET /api/v1/apps/{name}/logs"

// sourceRouter is the only source of logs that there is yet: the edges.
const sourceRouter = "router"

// Forms that a log comes in.
const (
	formText  = "text/plain"
	formLines = "application/x-ndjson"
	formSSE   = "text/event-stream"
)

// accessLog serves an app's access log as lines of text or of JSON, or as server-sent
// events.
func (d *door) accessLog(w http.ResponseWriter, r *http.Request) {
	const rpc = appsv1.IngressService_FollowAccessLog_FullMethodName
	ctx, err := d.authorize(w, r, rpc)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	lines, follow, form, err := logWanted(r)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	app, err := d.ingress.app(ctx, r.PathValue("name"))
	if err != nil {
		d.fail(w, r, err)
		return
	}
	sink := &logSink{w: w, rc: http.NewResponseController(w), form: form}
	if r.Method == http.MethodHead {
		sink.header()
		return
	}
	// A log that is followed ends with the access to it.
	ctx, stop := d.guard.Watch(ctx, rpc, authn.FromHeader(r.Header))
	defer stop()
	err = d.ingress.follow(ctx, app, lines, follow, sink.send)
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, errClientGone):
	case !sink.begun:
		d.fail(w, r, err)
	default:
		d.log.DebugContext(ctx, "an access log broke off", "deployment", app.ID, "error", err)
	}
}

// logWanted reads what of a log is asked for, and in which form. Errors are
// *problem.Error: 400 for a query that cannot be read, 422.
func logWanted(r *http.Request) (lines int, follow bool, form string, err error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, false, "", problem.Malformed("The query cannot be read; write it as source=router&lines=100&follow=true.")
	}
	var faults []problem.Field
	fault := func(field, message string) {
		faults = append(faults, problem.Field{Field: field, Message: message})
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains([]string{"source", "lines", "follow", "format"}, name) {
			fault(name, "is no parameter of this; there are source, lines, follow and format")
			break
		}
		if len(query[name]) > 1 {
			fault(name, "must be given once")
		}
	}
	if query.Get("source") != sourceRouter {
		fault("source", "must be router, for the requests as the edges served them")
	}
	lines = defaultLines
	if given := query.Get("lines"); given != "" {
		if lines, err = strconv.Atoi(given); err != nil || lines < 1 || lines > maxLines {
			fault("lines", fmt.Sprintf("must be a whole number from 1 to %d", maxLines))
		}
	}
	if given := query.Get("follow"); given != "" {
		if follow, err = strconv.ParseBool(given); err != nil {
			fault("follow", "must be true or false")
		}
	}
	form = accepted(r.Header.Values("Accept"))
	switch query.Get("format") {
	case "":
	case "text":
		form = formText
	case "json":
		form = formLines
	default:
		fault("format", "must be text or json")
	}
	if len(faults) > 0 {
		return 0, false, "", problem.Validation(faults)
	}
	return lines, follow, form, nil
}

// accepted is the form that a client names; text for those that name none of ours.
func accepted(accept []string) string {
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, _, err := mime.ParseMediaType(part)
		if err == nil && (kind == formLines || kind == formSSE) {
			return kind
		}
	}
	return formText
}

// logSink is one client of a log.
type logSink struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	form  string
	begun bool
}

func (s *logSink) header() {
	h := s.w.Header()
	h.Set("Content-Type", s.form+"; charset=utf-8")
	// Proxies that buffer would hold lines back.
	h.Set("X-Accel-Buffering", "no")
	s.w.WriteHeader(http.StatusOK)
}

// send writes entries as they are asked for; none shows that the stream lives.
func (s *logSink) send(entries []requests.Entry) error {
	if !s.begun {
		s.begun = true
		// The stream has no end that a deadline could be set for; each write has its own.
		if err := s.rc.SetReadDeadline(time.Time{}); err != nil {
			return fmt.Errorf("keep a log open: %w", err)
		}
		s.header()
	} else if len(entries) == 0 && s.form != formSSE {
		// What reads lines has no word for it but an empty one.
		return s.write([]byte("\n"))
	}
	var out []byte
	for _, e := range entries {
		if s.form == formText {
			out = append(append(out, e.Line()...), '\n')
			continue
		}
		line, err := strictjson.Marshaler{}.Marshal(e.Message())
		if err != nil {
			return fmt.Errorf("write a line of a log: %w", err)
		}
		if s.form == formSSE {
			out = append(append(append(out, "event: request\ndata: "...), line...), '\n')
			continue
		}
		out = append(out, line...)
	}
	if len(out) == 0 && s.form == formSSE {
		out = []byte(": still here\n\n")
	}
	return s.write(out)
}

func (s *logSink) write(b []byte) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("bound a write: %w", err)
	}
	if len(b) > 0 {
		if _, err := s.w.Write(b); err != nil {
			return errors.Join(errClientGone, err)
		}
	}
	if err := s.rc.Flush(); err != nil {
		return errors.Join(errClientGone, err)
	}
	return nil
}
