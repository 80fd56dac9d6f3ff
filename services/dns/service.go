// Package dns keeps the records of the DNS zones that the platform holds as the log says
// they shall be: those of custom domains, of the base domain and of tunnels. It also
// makes the records of ACME's DNS-01 challenges for the edges, which hold no key to any
// zone.
package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/services/dns/cloudflare"
	"github.com/slipway-paas/slipway/services/dns/tunnel"
	"github.com/slipway-paas/slipway/services/dns/wanted"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

// Deps are what the service stands on.
type Deps struct {
	Store     eventstore.Store
	NATS      *nats.Conn
	JetStream jetstream.JetStream
	Seal      *seal.Sealer
	Log       *slog.Logger
	// Metrics gets the figures; nil for none.
	Metrics prometheus.Registerer
	// Provider takes the place of Cloudflare when set.
	Provider zone.Provider
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Service keeps zones.
type Service struct {
	config   Config
	policy   wanted.Policy
	deps     Deps
	figures  *figures
	tunnels  *decider.Handler[tunnel.State, tunnel.Command]
	requests *rate.Limiter // for challenges
	caughtUp atomic.Bool

	// wake has one token when something else may be wanted.
	wake chan struct{}

	mu       sync.Mutex
	provider zone.Provider // nil without a token
	state    *wanted.State
	// sequence is the last event that state includes; moved is closed when it grows.
	sequence uint64
	moved    chan struct{}
	zones    []zone.Zone
	standing standing
	waiting  []chan struct{} // for a whole comparison

	rounds rounds
}

// New makes a service that does nothing until Run.
func New(c Config, d Deps) (*Service, error) {
	if d.Store == nil || d.NATS == nil || d.JetStream == nil || d.Seal == nil || d.Log == nil {
		return nil, errors.New("dns needs an event store, NATS, JetStream, a sealer and a logger")
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	policy, err := c.policy()
	if err != nil {
		return nil, err
	}
	c.CompareEvery, c.TunnelService = cmp.Or(c.CompareEvery, defaultEvery), cmp.Or(c.TunnelService, defaultService)
	c.Owner = cmp.Or(c.Owner, c.BaseDomain)
	if d.Now == nil {
		d.Now = time.Now
	}
	f, err := newFigures(d.Metrics)
	if err != nil {
		return nil, err
	}
	return &Service{
		config: c, policy: policy, deps: d, figures: f, state: wanted.NewState(), wake: make(chan struct{}, 1), moved: make(chan struct{}),
		requests: rate.NewLimiter(challengeRate, challengeBurst), rounds: newRounds(),
		tunnels: decider.NewHandler(d.Store, tunnel.Decider(), decider.Options[tunnel.State]{
			Source: source, Now: func() time.Time { return d.Now().UTC() }, NewID: func() string { return uuid.Must(uuid.NewV7()).String() },
		}),
	}, nil
}

// source is who writes the events.
const source = "dns"

// Register puts the service on a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	dnsv1.RegisterDNSAdminServiceServer(r, server{Service: s})
}

// Ready is nil once the log is read. What the provider does not do is no part of it:
// nothing but DNS waits for that, and the status and the figures say it.
func (s *Service) Ready() error {
	if !s.caughtUp.Load() {
		return errors.New("domains and tunnels are still being read")
	}
	return nil
}

// Run keeps zones until ctx ends, then returns nil.
func (s *Service) Run(ctx context.Context) error {
	provider, err := s.open(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.provider, s.state, s.sequence = provider, wanted.NewState(), 0
	if provider == nil {
		s.standing.trouble = noToken
	}
	s.mu.Unlock()
	if provider == nil {
		s.deps.Log.Info("no zone is held: there is no Cloudflare token (--cloudflare-token-file)")
	}
	defer s.caughtUp.Store(false)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ready := make(chan struct{})
	var running sync.WaitGroup
	part := func(doing string, run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", doing, err))
			}
		})
	}
	part("follow domains and tunnels", func(ctx context.Context) error {
		return s.deps.Store.Follow(ctx, 0, s.apply, func() {
			s.caughtUp.Store(true)
			close(ready)
		}, wanted.Filters()...)
	})
	part("answer challenges", func(ctx context.Context) error { return s.answerChallenges(ctx) })
	if provider != nil {
		part("keep zones", func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return nil
			case <-ready:
				return s.keep(ctx)
			}
		})
	}
	<-ctx.Done()
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// open is the provider; nil without a token.
func (s *Service) open(ctx context.Context) (zone.Provider, error) {
	if s.deps.Provider != nil {
		return s.deps.Provider, nil
	}
	token, err := s.token(ctx)
	if err != nil || token == "" {
		return nil, err
	}
	c := s.config.Cloudflare
	client, err := cloudflare.New(cloudflare.Config{
		Token: token, Owner: s.config.Owner, URL: c.URL, Account: c.Account, PerWindow: c.Rate, Watch: s.figures,
	})
	if err != nil {
		return nil, fmt.Errorf("use Cloudflare: %w", err)
	}
	return client, nil
}

// apply takes in what the log says.
func (s *Service) apply(_ context.Context, events []eventstore.Recorded) error {
	s.mu.Lock()
	changed := false
	for _, rec := range events {
		if s.state.Apply(rec) {
			changed = true
		}
		s.sequence = rec.Sequence
	}
	close(s.moved)
	s.moved = make(chan struct{})
	s.mu.Unlock()
	if changed {
		s.rouse()
	}
	return nil
}

// rouse has what is wanted looked at.
func (s *Service) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// until waits until so holds of the state, or ctx ends.
func (s *Service) until(ctx context.Context, so func(*wanted.State) bool) bool {
	for {
		s.mu.Lock()
		done, moved := so(s.state), s.moved
		s.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-moved:
		}
	}
}
