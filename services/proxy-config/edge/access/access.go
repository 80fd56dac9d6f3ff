// Package access tells of the requests that an edge serves: an entry of each in the
// app's access log, and sums of all of them for the app's figures.
//
// Whoever serves a request never waits for either. Entries go into a bounded queue and
// from there in batches to a short-lived stream; what finds no room is dropped and
// counted. Sums are kept in memory and sent every few seconds; they miss nothing.
package access

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// flushEvery is how long entries are gathered.
	flushEvery = 200 * time.Millisecond
	// summarizeEvery is how long requests are summed up.
	summarizeEvery = 5 * time.Second
	// mostQueued is how many entries of all apps may wait to be gathered.
	mostQueued = 8192
	// mostPerFlush is how many entries of one app are logged per flush: a thousand a
	// second. A batch of as many long ones stays far below NATS' largest message.
	mostPerFlush = 200
	// writeTimeout is how long NATS may take what is written to its connection.
	writeTimeout = 5 * time.Second
)

// Publisher sends a message and does not wait for more than that; *nats.Conn is one.
type Publisher interface {
	Publish(subject string, data []byte) error
}

// Recorder takes note of requests. Use New; its methods are safe for concurrent use.
type Recorder struct {
	edge    string
	publish Publisher
	log     *slog.Logger

	apps  sync.Map // deployment id -> *App
	queue chan entry

	// dropped counts entries by why.
	tooMany, queueFull, unsent atomic.Uint64
}

type entry struct {
	app *App
	*edgev1.AccessLogEntry
}

// New makes a recorder that publishes nothing until Run.
func New(edge string, publish Publisher, log *slog.Logger) *Recorder {
	return &Recorder{edge: edge, publish: publish, log: log, queue: make(chan entry, mostQueued)}
}

// Connect makes the connection that a recorder publishes over: one of its own, so that
// acknowledgements of routes never stand behind logs. NATS being away is no error.
func Connect(edge, url, nkeySeedFile string, log *slog.Logger) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("slipway-edge access " + edge),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.ReconnectJitter(500*time.Millisecond, 500*time.Millisecond),
		nats.FlusherTimeout(writeTimeout),
		// What cannot be sent now is dropped, and said to be.
		nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Warn("NATS reported an error", "error", err)
		}),
	}
	if nkeySeedFile != "" {
		nkey, err := nats.NkeyOptionFromSeed(nkeySeedFile)
		if err != nil {
			return nil, fmt.Errorf("reading the NATS nkey seed %s: %w", nkeySeedFile, err)
		}
		opts = append(opts, nkey)
	}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return nil, fmt.Errorf("setting up the NATS connection for access logs: %w", err)
	}
	return nc, nil
}

// App is the one with that deployment; nil for a route that names none.
func (r *Recorder) App(org, deployment string) *App {
	if v, ok := r.apps.Load(deployment); ok {
		return v.(*App)
	}
	if !subjects.ValidToken(org) || !subjects.ValidToken(deployment) {
		return nil
	}
	v, _ := r.apps.LoadOrStore(deployment, &App{org: org, deployment: deployment, since: time.Now()})
	return v.(*App)
}

// Log puts the entry that make returns into the app's access log, unless there is no
// room; make is not called then.
func (r *Recorder) Log(app *App, make func() *edgev1.AccessLogEntry) {
	if app.taken.Add(1) > mostPerFlush {
		app.dropped.Add(1)
		r.tooMany.Add(1)
		return
	}
	select {
	case r.queue <- entry{app, make()}:
	default:
		app.taken.Add(-1)
		app.dropped.Add(1)
		r.queueFull.Add(1)
	}
}

// Run publishes until ctx ends, then what is left, and returns. serves says whether a
// deployment is still routed: what is not is forgotten.
func (r *Recorder) Run(ctx context.Context, serves func() map[string]struct{}) {
	summed := make(chan struct{})
	go func() { defer close(summed); r.summarize(ctx, serves) }()
	r.gather(ctx)
	<-summed
}

// gather makes batches of entries.
func (r *Recorder) gather(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	pending := map[*App][]*edgev1.AccessLogEntry{}
	for {
		select {
		case e := <-r.queue:
			pending[e.app] = append(pending[e.app], e.AccessLogEntry)
		case <-tick.C:
			r.flush(pending)
			clear(pending)
		case <-ctx.Done():
			for {
				select {
				case e := <-r.queue:
					pending[e.app] = append(pending[e.app], e.AccessLogEntry)
					continue
				default:
				}
				break
			}
			r.flush(pending)
			return
		}
	}
}

func (r *Recorder) flush(pending map[*App][]*edgev1.AccessLogEntry) {
	for app, entries := range pending {
		app.taken.Store(0)
		batch := &edgev1.AccessLogBatch{EdgeId: r.edge, Entries: entries, Dropped: app.dropped.Swap(0)}
		if err := r.send(subjects.AccessLog(app.org, app.deployment), batch); err != nil {
			app.dropped.Add(batch.Dropped + uint64(len(entries)))
			r.unsent.Add(uint64(len(entries)))
			r.log.Debug("entries of an access log were dropped", "deployment", app.deployment, "entries", len(entries), "error", err)
		}
	}
}

func (r *Recorder) summarize(ctx context.Context, serves func() map[string]struct{}) {
	tick := time.NewTicker(summarizeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.sums(time.Now(), serves())
		case <-ctx.Done():
			r.sums(time.Now(), nil)
			return
		}
	}
}

// sums sends what was served since the last time and forgets apps that are not served;
// nil forgets none.
func (r *Recorder) sums(now time.Time, served map[string]struct{}) {
	r.apps.Range(func(_, v any) bool {
		app := v.(*App)
		summary, err := app.take(r.edge, now)
		switch {
		case err != nil:
			r.log.Error("requests could not be summed up", "deployment", app.deployment, "error", err)
		case summary != nil:
			if err := r.send(subjects.RequestSummary(app.org, app.deployment), summary); err != nil {
				// Said with the next ones.
				if err := app.putBack(summary); err != nil {
					r.log.Error("requests could not be summed up", "deployment", app.deployment, "error", err)
				}
			}
		}
		if _, there := served[app.deployment]; served != nil && !there {
			r.apps.Delete(app.deployment)
		}
		return true
	})
}

func (r *Recorder) send(subject string, m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", subject, err)
	}
	if err := r.publish.Publish(subject, data); err != nil {
		return fmt.Errorf("publishing on %s: %w", subject, err)
	}
	return nil
}
