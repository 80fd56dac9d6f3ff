// Package events follows the log for clients: an organization's own events, from any
// place in it, without end.
package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// ErrClosing is returned by Follow when the gateway shuts down: a client resumes
// from its last sequence elsewhere.
var ErrClosing = errors.New("the gateway is shutting down")

// Streams follows the log for clients, at most so many at a time.
type Streams struct {
	store       eventstore.Store
	perOperator int
	total       int
	heartbeat   time.Duration
	told        func(id string, sequence uint64)

	closing chan struct{}
	close   func()

	mu      sync.Mutex
	open    map[string]int // operator id -> streams
	allOpen int
}

// NewStreams makes Streams that allow so many streams to one operator and in
// total, and beat when nothing happened for that long. told is called before a
// client learns of a deployment's event: what it reads then must not be older.
func NewStreams(store eventstore.Store, perOperator, total int, heartbeat time.Duration, told func(id string, sequence uint64)) *Streams {
	closing := make(chan struct{})
	return &Streams{
		store: store, perOperator: perOperator, total: total, heartbeat: heartbeat, told: told,
		closing: closing, close: sync.OnceFunc(func() { close(closing) }), open: map[string]int{},
	}
}

// Open counts a stream of something else than events, until the returned function is
// called. Too many are a *problem.Error (429).
func (s *Streams) Open(operator string) (closed func(), err error) {
	if err := s.acquire(operator); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { s.release(operator) }), nil
}

// Closing is closed when the gateway shuts down.
func (s *Streams) Closing() <-chan struct{} { return s.closing }

// Heartbeat is how often an idle stream is to show that it lives.
func (s *Streams) Heartbeat() time.Duration { return s.heartbeat }

// Close ends every stream; it does not wait for them.
func (s *Streams) Close() { s.close() }

// Sink is one client.
type Sink interface {
	// Begin is called once, when the stream is allowed.
	Begin() error
	Send(cloudevents.Event) error
	// CaughtUp is called once, after Send had all that was in the log at the start.
	CaughtUp() error
	// Beat shows a client that nothing happens, and us whether it is still there.
	Beat() error
}

// Follow gives the selected events after that sequence to the sink, then each
// new one, until ctx ends (nil), Close (ErrClosing), or the sink or the log fails.
// Too many streams are a *problem.Error (429) before Begin. The sink is never
// called concurrently.
func (s *Streams) Follow(ctx context.Context, operator string, of cloudevents.Selection, after uint64, sink Sink) error {
	filters, err := of.Filters()
	if err != nil {
		return err
	}
	if err := s.acquire(operator); err != nil {
		return err
	}
	defer s.release(operator)
	if err := sink.Begin(); err != nil {
		return err
	}

	following, stop := context.WithCancel(ctx)
	batches := make(chan []eventstore.Recorded)
	caughtUp := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- s.store.Follow(following, after, func(ctx context.Context, batch []eventstore.Recorded) error {
			select {
			case batches <- batch:
			case <-ctx.Done():
			}
			return nil
		}, func() { close(caughtUp) }, filters...)
	}()
	pumped, err := s.pump(ctx, of.Org, batches, caughtUp, ended, sink)
	stop()
	if !pumped {
		<-ended
	}
	return err
}

// pump reports whether it has taken the end from ended.
func (s *Streams) pump(ctx context.Context, org string, batches <-chan []eventstore.Recorded, caughtUp <-chan struct{}, ended <-chan error, sink Sink) (tookEnd bool, err error) {
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-s.closing:
			return false, ErrClosing
		case err := <-ended:
			if err != nil {
				return true, fmt.Errorf("follow events: %w", err)
			}
			return true, nil
		case <-caughtUp:
			caughtUp = nil
			if err := sink.CaughtUp(); err != nil {
				return false, err
			}
		case <-beat.C:
			if err := sink.Beat(); err != nil {
				return false, err
			}
		case batch := <-batches:
			for _, rec := range batch {
				// The filter has left others out already: who reads another's events would not
				// know of it.
				if !rec.Readable() || rec.Aggregate.Org != org {
					continue
				}
				event, err := cloudevents.Render(rec)
				if err != nil {
					return false, err
				}
				if rec.Aggregate.Kind == subjects.Deployment {
					s.told(rec.Aggregate.ID, rec.Sequence)
				}
				if err := sink.Send(event); err != nil {
					return false, err
				}
			}
			beat.Reset(s.heartbeat)
		}
	}
}

func (s *Streams) acquire(operator string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[operator] >= s.perOperator || s.allOpen >= s.total {
		return problem.Limit("Too many event streams are open; close one, or try again in a moment.", 5*time.Second)
	}
	s.open[operator]++
	s.allOpen++
	return nil
}

func (s *Streams) release(operator string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allOpen--
	if s.open[operator]--; s.open[operator] == 0 {
		delete(s.open, operator)
	}
}
