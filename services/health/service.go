// Package health asks every instance whether it answers and tells the log when
// that changes. What to probe is the view VIEW_instances; each result goes to the
// short-lived stream PROBES, only changes become events.
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
)

// reopenAfter is between attempts to open the view of instances.
const reopenAfter = time.Second

// Recorder takes facts; every eventstore.Store is one.
type Recorder interface {
	Record(ctx context.Context, e eventstore.Event) (sequence uint64, err error)
}

// Targets is what to probe; *view.View is one.
type Targets interface {
	Watch(ctx context.Context, filter string, handle func(context.Context, view.Change[*healthv1.Target]) error, ready func()) error
}

// Probe asks one instance and says in words why it is not healthy.
type Probe func(ctx context.Context, target *healthv1.Target, timeout time.Duration) (ok bool, reason string)

// Deps are what the service works with.
type Deps struct {
	Store     Recorder
	NATS      *nats.Conn
	JetStream jetstream.JetStream
	Log       *slog.Logger
	// Metrics and Meter get the service's figures, Tracer the spans of instances that
	// become healthy or unhealthy. Each may be nil.
	Metrics prometheus.Registerer
	Meter   metric.Meter
	Tracer  trace.Tracer

	// Probe is an HTTP request when nil; Publish is NATS's; Jitter, from 0 to 1, is
	// random. With the first two and Watch there is no need of NATS.
	Probe   Probe
	Publish func(subject string, data []byte) error
	Jitter  func() float64
}

// Service probes the instances of all nodes.
type Service struct {
	config   Config
	js       jetstream.JetStream
	recorder Recorder
	probe    Probe
	publish  func(subject string, data []byte) error
	jitter   func() float64
	log      *slog.Logger
	tracer   trace.Tracer
	meter    metric.Meter
	figures  *figures

	// slots bounds the probes under way.
	slots chan struct{}
	nats  *nats.Conn
	mu    sync.Mutex
	// watching is by VIEW_instances key.
	watching map[string]*watched
	running  sync.WaitGroup
	ready    atomic.Bool
}

// New returns a service that does nothing until Run.
func New(config Config, deps Deps) (*Service, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	if deps.Store == nil || deps.Log == nil || deps.Publish == nil && (deps.NATS == nil || deps.JetStream == nil) {
		return nil, errors.New("health: needs the event store, NATS, JetStream and a logger")
	}
	if deps.Probe == nil {
		deps.Probe = newHTTPProber().probe
	}
	if deps.Publish == nil {
		deps.Publish = deps.NATS.Publish
	}
	if deps.Jitter == nil {
		deps.Jitter = rand.Float64
	}
	if deps.Meter == nil {
		deps.Meter = noopmetric.Meter{}
	}
	if deps.Tracer == nil {
		deps.Tracer = nooptrace.NewTracerProvider().Tracer("health")
	}
	figures, err := newFigures(deps.Metrics)
	if err != nil {
		return nil, err
	}
	return &Service{
		config: config, tracer: deps.Tracer, meter: deps.Meter, figures: figures,
		js:       deps.JetStream,
		nats:     deps.NATS,
		recorder: deps.Store,
		probe:    deps.Probe,
		publish:  deps.Publish,
		jitter:   deps.Jitter,
		log:      deps.Log,
		slots:    make(chan struct{}, config.Concurrency),
		watching: make(map[string]*watched),
	}, nil
}

// Run probes until ctx ends; then it returns nil, all probes stopped.
func (s *Service) Run(ctx context.Context) error {
	targets, ok := s.open(ctx)
	if !ok {
		return nil
	}
	if s.nats != nil {
		hints, err := s.nats.Subscribe(subjects.AllEdgeUpstreams, func(m *nats.Msg) { s.hint(ctx, m.Data) })
		if err != nil {
			return fmt.Errorf("listen to what edges say of instances: %w", err)
		}
		// The connection's owner may have closed it before.
		defer func() { _ = hints.Unsubscribe() }()
	}
	return s.Watch(ctx, targets)
}

// Watch probes these targets until ctx ends; then it returns nil, all probes stopped.
func (s *Service) Watch(ctx context.Context, targets Targets) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.running.Wait()
	defer cancel()
	defer s.ready.Store(false)
	err := targets.Watch(ctx, ">", func(_ context.Context, c view.Change[*healthv1.Target]) error {
		if c.Deleted {
			s.unset(c.Key)
			return nil
		}
		s.set(ctx, c.Key, c.Value)
		return nil
	}, func() { s.ready.Store(true) })
	if err != nil {
		return fmt.Errorf("watch the view of instances: %w", err)
	}
	return nil
}

// open opens the view, waiting for the one who makes it. It returns false when ctx
// has ended.
func (s *Service) open(ctx context.Context) (*view.View[*healthv1.Target], bool) {
	for {
		targets, err := view.Open(ctx, s.js, subjects.BucketInstances,
			func() *healthv1.Target { return &healthv1.Target{} }, view.WithLog(s.log), view.WithMeter(s.meter))
		if err == nil {
			return targets, true
		}
		s.log.WarnContext(ctx, "the view of instances is not there yet", "error", err)
		select {
		case <-ctx.Done():
			return nil, false
		case <-time.After(reopenAfter):
		}
	}
}

// Ready returns nil when every instance known is under watch.
func (s *Service) Ready() error {
	if !s.ready.Load() {
		return errors.New("health has not read the view of instances yet")
	}
	return nil
}
