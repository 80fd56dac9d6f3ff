// Package subscriptions is where NATS clients outside read the events of their
// organization: a NATS server of its own, which joins the log as a leaf node and lets
// nothing through but one organization's events to each credential.
package subscriptions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-paas/slipway/libs/eventstore"
)

// Deps are what the service stands on.
type Deps struct {
	Store     eventstore.Store
	JetStream jetstream.JetStream
	Metrics   prometheus.Registerer
	Log       *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Service lets NATS clients outside read.
type Service struct {
	deps      Deps
	known     *directory
	door      *door
	consumers *consumers
	caughtUp  atomic.Bool
}

// New makes a service that listens from now on, and lets clients in while Run runs;
// the end of Run, or Close, lets go of all of them.
func New(c Config, d Deps) (*Service, error) {
	if d.Store == nil || d.JetStream == nil || d.Log == nil {
		return nil, errors.New("subscriptions need an event store, JetStream and a logger")
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Leaf == "" || c.LeafKey == "" {
		return nil, errors.New("--subscriptions-leaf, --subscriptions-leaf-key: both are needed to join NATS servers of your own")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	f, err := newFigures(d.Metrics)
	if err != nil {
		return nil, err
	}
	s := &Service{deps: d, known: newDirectory()}
	s.door = newDoor(c, s.known, f, d.Log, d.Now, s.open)
	s.consumers = newConsumers(d.JetStream, s.known, d.Now, d.Log)
	if err := s.door.start(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close is for a service that Run is not called of. It may be called again.
func (s *Service) Close() { s.door.stop() }

// Address is where clients connect, host:port.
func (s *Service) Address() string { return s.door.address() }

// open says why nobody may come in: whoever is let in must not have been ended
// meanwhile.
func (s *Service) open() error {
	if !s.caughtUp.Load() {
		return errors.New("credentials are still being read")
	}
	if !s.deps.JetStream.Conn().IsConnected() {
		return errors.New("the log is not reached, so that ended credentials are not known")
	}
	return nil
}

// Ready is nil once all credentials are known and the log is joined.
func (s *Service) Ready() error {
	if err := s.open(); err != nil {
		return err
	}
	if !s.door.joined() {
		return errors.New("the log has not been joined as a leaf node")
	}
	return nil
}

// Run follows the log until ctx ends, then returns nil.
func (s *Service) Run(ctx context.Context) error {
	defer s.door.stop()
	var running sync.WaitGroup
	running.Go(func() { s.door.sweep(ctx) })
	defer running.Wait()
	defer s.caughtUp.Store(false)
	caughtUp := func() {
		s.caughtUp.Store(true)
		running.Go(func() { s.consumers.run(ctx) })
	}
	handle := func(_ context.Context, events []eventstore.Recorded) error {
		begun, ended := s.known.apply(events)
		for _, c := range ended {
			s.door.end(c.id, "ended")
		}
		if s.caughtUp.Load() {
			s.consumers.changed(begun, ended)
		}
		return nil
	}
	if err := s.deps.Store.Follow(ctx, 0, handle, caughtUp, filters()...); err != nil && ctx.Err() == nil {
		return fmt.Errorf("follow credentials: %w", err)
	}
	return nil
}
