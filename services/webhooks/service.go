// Package webhooks tells endpoints outside of an organization's events: each event that
// a webhook is for becomes a delivery, which is signed, tried until the endpoint takes
// it or for some hours, and listed for a week.
package webhooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/webhooks/guard"
	"github.com/slipway-paas/slipway/services/webhooks/queue"
	"github.com/slipway-paas/slipway/services/webhooks/sender"
	"github.com/slipway-paas/slipway/services/webhooks/webhook"
)

// Deps are what the service stands on.
type Deps struct {
	Store     eventstore.Store
	JetStream jetstream.JetStream
	Seal      *seal.Sealer
	Version   string
	Log       *slog.Logger
	// Metrics gets the service's figures; nil keeps none.
	Metrics prometheus.Registerer
	// Now is the clock, Jitter from 0 to 1; the machine's and random when nil.
	Now    func() time.Time
	Jitter func() float64
}

// Service tells endpoints.
type Service struct {
	deps     Deps
	guard    guard.Guard
	known    *directory
	queue    *queue.Queue
	sender   *sender.Sender
	webhooks *decider.Handler[webhook.State, webhook.Command]
	figures  *figures
	trials   chan struct{} // one for each test of a webhook under way
	caughtUp atomic.Int32  // of the directory and the queue
}

// New makes a service that does nothing until Run.
func New(c Config, d Deps) (*Service, error) {
	if d.Store == nil || d.JetStream == nil || d.Seal == nil || d.Log == nil {
		return nil, errors.New("webhooks need an event store, JetStream, a sealer and a logger")
	}
	g, err := c.guard()
	if err != nil {
		return nil, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Jitter == nil {
		d.Jitter = rand.Float64
	}
	deliveries := queue.New(d.JetStream)
	f, err := newFigures(d.Metrics, deliveries, d.Now)
	if err != nil {
		return nil, err
	}
	return &Service{
		deps: d, guard: g, known: newDirectory(), queue: deliveries, sender: sender.New(g, d.Version), figures: f, trials: make(chan struct{}, maxTrials),
		webhooks: decider.NewHandler(d.Store, webhook.Decider(), decider.Options[webhook.State]{
			Source: "webhooks", Now: func() time.Time { return d.Now().UTC() }, NewID: newID, CacheSize: 256,
		}),
	}, nil
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// Register puts the service on a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	webhooksv1.RegisterWebhookServiceServer(r, server{Service: s})
}

// parts that must have caught up before the service is ready.
const parts = 2

// Ready is nil once all webhooks and deliveries are known.
func (s *Service) Ready() error {
	if s.caughtUp.Load() < parts {
		return errors.New("webhooks and deliveries are still being read")
	}
	return nil
}

// Run follows the log and delivers until ctx ends, then returns nil. Attempts under way
// are cut off and made again.
func (s *Service) Run(ctx context.Context) error {
	consumer, err := s.follower(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ready := make(chan struct{})
	caughtUp := func() {
		if s.caughtUp.Add(1) == parts {
			close(ready)
		}
	}
	defer s.caughtUp.Store(0)
	var running sync.WaitGroup
	part := func(doing string, run func() error) {
		running.Go(func() {
			if err := run(); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", doing, err))
			}
		})
	}
	part("follow webhooks", func() error {
		handle := func(_ context.Context, events []eventstore.Recorded) error {
			s.known.apply(events)
			return nil
		}
		return s.deps.Store.Follow(ctx, 0, handle, caughtUp, subjects.KindFilter(subjects.Webhook))
	})
	part("follow deliveries", func() error { return s.queue.Follow(ctx, caughtUp) })
	part("tell of events", func() error {
		return s.after(ctx, ready, func(ctx context.Context) error { return s.dispatch(ctx, consumer) })
	})
	part("deliver", func() error { return s.after(ctx, ready, s.deliver) })
	<-ctx.Done()
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (s *Service) after(ctx context.Context, ready <-chan struct{}, run func(context.Context) error) error {
	select {
	case <-ctx.Done():
		return nil
	case <-ready:
		return run(ctx)
	}
}
