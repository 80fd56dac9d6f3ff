// Package proxyconfig owns routes: which host goes to which instances. It follows
// the events of deployments, writes VIEW_routes for the edges, and records in the
// log when every living edge serves what was written. See README.md.
package proxyconfig

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
)

// source is the service's name in the events that it records.
const source = "proxy-config"

// lookAgain is how often routes and edges are looked at when nothing happens: an
// edge that falls silent says nothing about it, and what failed is tried again.
const lookAgain = 250 * time.Millisecond

// Deps are what the service stands on.
type Deps struct {
	Store     eventstore.Store
	NATS      *nats.Conn
	JetStream jetstream.JetStream
	// Registry gets the service's figures; nil keeps none.
	Registry prometheus.Registerer
	// Meter counts what views leave out, Tracer gets the spans of routes that a request
	// asked for. Either may be nil.
	Meter  metric.Meter
	Tracer trace.Tracer
	Now    func() time.Time
	Log    *slog.Logger
}

// Service writes routes and records what came of them. There is one at a time: a
// second one is refused by the view's revisions, not merged.
type Service struct {
	config  Config
	deps    Deps
	state   *state
	edges   *edges
	figures figures
	wake    chan struct{}
	ready   atomic.Bool
	// recheck asks the writer to compare the whole view again.
	recheck atomic.Bool
}

// New checks the configuration and wires the parts; nothing runs yet. It fails
// when a figure of the same name is registered already.
func New(c Config, d Deps) (*Service, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("proxy-config configuration: %w", err)
	}
	if d.Meter == nil {
		d.Meter = noopmetric.Meter{}
	}
	if d.Tracer == nil {
		d.Tracer = nooptrace.NewTracerProvider().Tracer(source)
	}
	s := &Service{config: c, deps: d, state: newState(), edges: newEdges(c, d.Now), wake: make(chan struct{}, 1)}
	s.figures = newFigures(s.edges)
	if d.Registry != nil {
		if err := s.figures.register(d.Registry); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Ready returns nil once the log has been folded and the view compared with it.
func (s *Service) Ready() error {
	if !s.ready.Load() {
		return errors.New("the routes are being worked out from the log")
	}
	return nil
}

// Run works until ctx ends; it returns nil then. The bucket VIEW_routes must exist.
func (s *Service) Run(ctx context.Context) error {
	routes, err := view.Open(ctx, s.deps.JetStream, subjects.BucketRoutes,
		func() *routingv1.Route { return &routingv1.Route{} }, view.WithLog(s.deps.Log), view.WithMeter(s.deps.Meter))
	if err != nil {
		return fmt.Errorf("proxy-config: %w", err)
	}
	sub, err := s.deps.NATS.Subscribe(subjects.AllEdgesApplied, s.acknowledged)
	if err != nil {
		return fmt.Errorf("proxy-config: listening to edges: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.watchLine(ctx) })
	group.Go(func() error { return s.Keep(ctx, routes) })
	return wrap("proxy-config", group.Wait())
}

// Keep makes routes what the log says, and records what the edges acknowledge to
// Hear, until ctx ends. It needs no NATS.
func (s *Service) Keep(ctx context.Context, routes Routes) error {
	replayed := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := s.deps.Store.Follow(ctx, 0, s.fold, func() { close(replayed) }, subjects.KindFilter(subjects.Deployment), subjects.KindFilter(subjects.Domain))
		return wrap("following deployments and domains", err)
	})
	group.Go(func() error {
		select {
		case <-replayed:
		case <-ctx.Done():
			return nil
		}
		w := &writer{Service: s, routes: routes, revisions: map[string]uint64{}, unsure: map[string]struct{}{}, recorded: map[string]struct{}{}, since: map[string]time.Time{}}
		return w.run(ctx)
	})
	return group.Wait()
}

func wrap(doing string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (s *Service) fold(_ context.Context, batch []eventstore.Recorded) error {
	s.state.apply(batch)
	s.poke()
	return nil
}

func (s *Service) acknowledged(m *nats.Msg) {
	ack := &routingv1.EdgeApplied{}
	if err := proto.Unmarshal(m.Data, ack); err != nil || m.Subject != subjects.EdgeApplied(ack.GetEdgeId()) {
		s.deps.Log.Warn("left out an acknowledgement that is not one", "subject", m.Subject, "error", err)
		return
	}
	s.Hear(ack)
}

// Hear takes in what an edge says that it serves.
func (s *Service) Hear(ack *routingv1.EdgeApplied) {
	if s.edges.hear(ack) {
		s.poke()
	}
}

// watchLine forgets the edges whenever NATS was away: while nothing could be
// heard, an edge may have come that nobody knows of. The view may have changed too.
func (s *Service) watchLine(ctx context.Context) error {
	changes := s.deps.NATS.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CONNECTED)
	defer s.deps.NATS.RemoveStatusListener(changes)
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-changes:
			if !ok {
				return nil
			}
			s.edges.listenAgain()
			s.recheck.Store(true)
		}
	}
}

func (s *Service) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
