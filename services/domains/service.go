// Package domains owns the names that apps' owners bring: it looks at their DNS until
// that says whose they are, and from then on once in a while. See README.md.
package domains

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/directory"
	"github.com/slipway-paas/slipway/services/domains/domain"
	"github.com/slipway-paas/slipway/services/domains/proof"
	"github.com/slipway-paas/slipway/services/domains/resolver"
)

// source is the service's name in the events that it writes.
const source = "domains"

// Resolver asks DNS; *resolver.Resolver is one. Errors: resolver.ErrUnavailable.
type Resolver interface {
	Look(ctx context.Context, w proof.Wanted) (proof.Answers, error)
}

// Deps are what the service stands on.
type Deps struct {
	Store eventstore.Store
	// NATS is where edges report certificates; nil hears none.
	NATS *nats.Conn
	// Resolver takes the place of that which Config names, when it is set.
	Resolver Resolver
	// Metrics gets the service's figures; nil for none.
	Metrics prometheus.Registerer
	// Now is the clock; the machine's when nil.
	Now func() time.Time
	Log *slog.Logger
}

// Service owns domains.
type Service struct {
	config   Config
	deps     Deps
	known    *directory.Directory
	handler  *handler
	claims   claims.Book
	plan     *plan
	looks    singleflight.Group
	unkept   *unkept
	figures  figures
	caughtUp atomic.Bool
}

// New checks the configuration and wires the parts; nothing runs yet.
func New(c Config, d Deps) (*Service, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("domains configuration: %w", err)
	}
	if d.Store == nil || d.Log == nil {
		return nil, errors.New("domains need an event store and a logger")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Resolver == nil {
		r, err := resolver.New(c.Resolver)
		if err != nil {
			return nil, fmt.Errorf("--resolver: %w", err)
		}
		d.Resolver = r
	}
	s := &Service{config: c, deps: d, known: directory.New(), plan: newPlan(), unkept: newUnkept()}
	var err error
	if s.figures, err = newFigures(d.Metrics, s.known); err != nil {
		return nil, err
	}
	s.claims = claims.Book{Store: d.Store, Now: s.now, Source: source}
	n := names{book: s.claims, store: d.Store, known: s.known}
	s.handler = decider.NewHandler(d.Store, domain.Decider(), decider.Options[domain.State]{
		Source: source, Now: s.now, NewID: newID, With: n.With, CacheSize: 1024,
	})
	return s, nil
}

func (s *Service) now() time.Time { return s.deps.Now().UTC() }

// Register puts the service on a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	domainv1.RegisterDomainServiceServer(r, server{Service: s})
}

// Ready is nil once all apps and domains are known.
func (s *Service) Ready() error {
	if !s.caughtUp.Load() {
		return errors.New("apps and domains are still being read")
	}
	return nil
}

// Run works until ctx ends, then returns nil. Looks under way are cut off and made again.
//
//	reads                what it does
//	evt.*.deployment.>   adds the domain that an app is asked for with, removes those of one that is destroyed
//	evt.*.domain.>       looks at the DNS of those that are due
//	edge.certificate.*   records which domains have a certificate
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	reports, err := s.hearCertificates()
	if err != nil {
		return err
	}
	defer reports.stop()
	caughtUp := make(chan struct{})
	var once sync.Once
	defer s.caughtUp.Store(false)
	group.Go(func() error {
		return s.deps.Store.Follow(ctx, 0, s.fold, func() {
			once.Do(func() {
				s.caughtUp.Store(true)
				close(caughtUp)
			})
		}, subjects.KindFilter(subjects.Deployment), subjects.KindFilter(subjects.Domain), subjects.KindFilter(subjects.DNSRecord))
	})
	for _, part := range []func(context.Context) error{s.keep, s.look, reports.run} {
		group.Go(func() error {
			select {
			case <-ctx.Done():
				return nil
			case <-caughtUp:
				return part(ctx)
			}
		})
	}
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("domains: %w", err)
	}
	return nil
}

// fold takes events in, and notes what is to be done for them.
func (s *Service) fold(_ context.Context, events []eventstore.Recorded) error {
	changed, recorded, apps := s.known.Apply(events)
	now := s.now()
	for _, a := range changed {
		state, live := s.known.Get(a)
		s.plan.set(a, state, live, now, s.config.Recheck)
	}
	for _, a := range recorded {
		s.plan.soon(a, now)
	}
	s.unkept.add(apps...)
	return nil
}

func (s *Service) handle(ctx context.Context, a subjects.Aggregate, c domain.Command, by asked) (decider.Result[domain.State], error) {
	return s.handler.Handle(ctx, decider.Command[domain.Command]{
		Aggregate: a, Command: c, ID: by.command, Again: by.command != "", Actor: by.actor, Causation: by.causation, TraceParent: by.traceParent,
	})
}

// asked is who asked for a command, and what led to it.
type asked struct{ command, actor, causation, traceParent string }
