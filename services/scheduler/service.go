// Package scheduler owns deployments: it takes commands, decides where instances
// run, and carries rollouts to their end. See README.md.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/scheduler/claims"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/fleet"
	"github.com/slipway-paas/slipway/services/scheduler/readmodel"
	"github.com/slipway-paas/slipway/services/scheduler/rollout"
	"github.com/slipway-paas/slipway/services/scheduler/roster"
)

// Sealer seals and unseals a deployment's environment, and keeps the data keys.
type Sealer interface {
	Seal(ctx context.Context, a subjects.Aggregate, env map[string]string) (names []string, ciphertext []byte, err error)
	Open(ctx context.Context, a subjects.Aggregate, ciphertext []byte) (map[string]string, error)
	Destroy(ctx context.Context, a subjects.Aggregate) error
	// Rotate wraps every data key of the platform with a new master key.
	Rotate(ctx context.Context) (seal.Rotated, error)
}

// Deps are what the scheduler stands on.
type Deps struct {
	Store     eventstore.Store
	NATS      *nats.Conn
	JetStream jetstream.JetStream
	Pool      *pgxpool.Pool
	Tiers     billingv1.TierServiceClient
	Seal      Sealer
	Now       func() time.Time
	Log       *slog.Logger
	// AtOnce is how many deployments are carried forward at once; see rollout.Deps.
	AtOnce int
	// Metrics and Meter get the scheduler's figures, Tracer the spans of what it does
	// for a request after having answered it. Each may be nil.
	Metrics prometheus.Registerer
	Meter   metric.Meter
	Tracer  trace.Tracer
}

// Service is the scheduler.
type Service struct {
	config  Config
	deps    Deps
	fleet   *fleet.Fleet
	roster  *roster.Roster
	names   names
	handler *handler
	reactor *rollout.Reactor
	closed  *closedOrgs
	figures *figures
	// nodeHandler runs commands on nodes; nodesKick has them looked at before time.
	nodeHandler *nodeHandler
	nodesKick   chan struct{}
	views       *views
	projection  *projection.Runner
	rows        readmodel.Rows
	folded      atomic.Bool
	// limits is held while a tier's limit is compared and used.
	limits sync.Mutex
}

// New checks the configuration and wires the parts; nothing runs yet.
func New(c Config, d Deps) (*Service, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("scheduler configuration: %w", err)
	}
	if d.Meter == nil {
		d.Meter = noopmetric.Meter{}
	}
	if d.Tracer == nil {
		d.Tracer = nooptrace.NewTracerProvider().Tracer("scheduler")
	}
	s := &Service{config: c, deps: d, fleet: fleet.New(), views: &views{},
		roster: roster.New(c.NodeLossAfter, d.Now), nodeHandler: newNodeHandler(d.Store, d.Now), nodesKick: make(chan struct{}, 1), closed: newClosedOrgs()}
	var err error
	if s.figures, err = newFigures(d.Metrics, s.fleet, s.roster, func() int { return s.reactor.Waiting() }); err != nil {
		return nil, err
	}
	s.names = names{book: claims.Book{Store: d.Store, Now: d.Now}}
	s.handler = newHandler(d.Store, s.names, d.Now)
	s.reactor = rollout.New(rollout.Deps{Store: d.Store, Fleet: s.fleet, Nodes: s.roster, Views: s.views,
		Keys: d.Seal, Claims: s.names, Now: d.Now, Log: d.Log, AtOnce: d.AtOnce, Tracer: d.Tracer, Figures: s.figures})
	runner, err := projection.New(d.Pool, d.Store, readmodel.Projection(d.Store), d.Log, projection.WithMeter(d.Meter))
	if err != nil {
		return nil, fmt.Errorf("scheduler read model: %w", err)
	}
	s.projection, s.rows = runner, readmodel.Rows{Pool: d.Pool, Schema: runner.Schema()}
	return s, nil
}

// Register adds the scheduler's RPCs.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	schedulerv1.RegisterSchedulerServiceServer(r, server{Service: s})
	adminv1.RegisterAdminServiceServer(r, adminServer{service: s})
}

// Ready says what is missing before commands can be taken; nil when nothing is.
func (s *Service) Ready() error {
	if !s.folded.Load() {
		return errors.New("the log is still being read")
	}
	return s.projection.Ready()
}

// Run works until ctx ends.
//
//	reads            what it does
//	evt.*.deployment.>   folds the fleet, publishes views, carries rollouts on
//	evt.*.org.*.OrgDeleted  destroys what a deleted organization had deployed
//	evt._.node.>         folds which nodes are lost or to be drained
//	VIEW_nodes           knows where there is room, and which node is silent
//	svc.env.*.*          gives nodes their instances' environment
//	evt.*.deployment.>   rows for readers (projection)
func (s *Service) Run(ctx context.Context) error {
	buckets, err := s.open(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.answerSecrets(ctx) })
	group.Go(func() error { return s.projection.Run(ctx) })
	group.Go(func() error { return s.Carry(ctx, buckets) })
	return group.Wait()
}

// Buckets are the views that the scheduler publishes and reads.
type Buckets struct {
	Desired Bucket[*nodev1.DesiredInstance]
	Targets Bucket[*healthv1.Target]
	Nodes   Heartbeats
}

func (s *Service) open(ctx context.Context) (b Buckets, err error) {
	// What cannot be read of a view is said.
	watched := []view.Option{view.WithLog(s.deps.Log), view.WithMeter(s.deps.Meter)}
	if b.Desired, err = view.Open(ctx, s.deps.JetStream, subjects.BucketDesired, func() *nodev1.DesiredInstance { return &nodev1.DesiredInstance{} }, watched...); err != nil {
		return b, fmt.Errorf("opening %s: %w", subjects.BucketDesired, err)
	}
	if b.Targets, err = view.Open(ctx, s.deps.JetStream, subjects.BucketInstances, func() *healthv1.Target { return &healthv1.Target{} }, watched...); err != nil {
		return b, fmt.Errorf("opening %s: %w", subjects.BucketInstances, err)
	}
	if b.Nodes, err = view.Open(ctx, s.deps.JetStream, subjects.BucketNodes, func() *nodev1.Node { return &nodev1.Node{} }, watched...); err != nil {
		return b, fmt.Errorf("opening %s: %w", subjects.BucketNodes, err)
	}
	return b, nil
}

// Carry folds the log, publishes what follows from it and carries rollouts on,
// until ctx ends. It needs neither NATS nor PostgreSQL.
func (s *Service) Carry(ctx context.Context, b Buckets) error {
	s.views.desired = &published[*nodev1.DesiredInstance]{name: subjects.BucketDesired, tracer: s.deps.Tracer, bucket: b.Desired,
		stamp: func(d *nodev1.DesiredInstance, n uint64) { d.Sequence = n }}
	s.views.targets = &published[*healthv1.Target]{name: subjects.BucketInstances, tracer: s.deps.Tracer, bucket: b.Targets,
		stamp: func(t *healthv1.Target, n uint64) { t.Sequence = n }}
	if err := s.views.desired.load(ctx); err != nil {
		return err
	}
	if err := s.views.targets.load(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.watchNodes(ctx, b.Nodes) })
	group.Go(func() error { return s.followLog(ctx, group, b.Nodes) })
	return group.Wait()
}

// Deployment is the state that rollouts are carried on from; false when there is none.
func (s *Service) Deployment(id string) (deployment.State, bool) { return s.fleet.Get(id) }

// followLog folds the log from its first event; once it has caught up, rollouts
// go on and nodes that stay silent are called lost.
func (s *Service) followLog(ctx context.Context, group *errgroup.Group, beats Heartbeats) error {
	handle := func(_ context.Context, events []eventstore.Recorded) error {
		ids := make([]string, 0, len(events))
		for _, e := range events {
			switch e.Aggregate.Kind {
			case subjects.Node:
				s.foldNode(e)
				continue
			case subjects.Org:
				s.closed.apply(e)
				continue
			}
			if s.fleet.Apply(e); s.closed.has(e.Aggregate.Org) {
				s.closed.look()
			}
			ids = append(ids, e.Aggregate.ID)
		}
		s.reactor.Changed(ids...)
		return nil
	}
	caughtUp := func() {
		s.folded.Store(true)
		s.reactor.Changed(s.views.deployments()...)
		group.Go(func() error { return s.reactor.Run(ctx) })
		group.Go(func() error { return s.decideNodes(ctx, beats) })
		group.Go(func() error { return s.destroyClosed(ctx) })
	}
	return s.deps.Store.Follow(ctx, 0, handle, caughtUp, subjects.KindFilter(subjects.Deployment),
		subjects.KindFilter(subjects.Node), subjects.TypeFilter(subjects.Org, orgDeletions))
}
