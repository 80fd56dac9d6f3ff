// Package queue is the deliveries to webhooks: a bounded stream that has the last state
// of each, and an index of it in memory. Who changes a delivery must have seen its last
// state, so that processes that run beside each other never make the same attempt.
package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/webhooks/delivery"
)

// ErrLost is returned when somebody else has changed the delivery.
var ErrLost = errors.New("somebody else has changed the delivery")

const wrongLastSequence = 10071

// Entry is a delivery as the index has it, without its body.
type Entry struct {
	*webhooksv1.Delivery
	// sequence is its last state's in the stream; 0 for none yet.
	sequence uint64
}

// Queue may be used concurrently.
type Queue struct {
	js jetstream.JetStream

	mu      sync.Mutex
	entries map[string]Entry // by subject
	pending map[string]bool
	changed chan struct{}
}

// New makes a queue that is empty until Follow.
func New(js jetstream.JetStream) *Queue {
	return &Queue{js: js, entries: map[string]Entry{}, pending: map[string]bool{}, changed: make(chan struct{}, 1)}
}

// Changed has something when there may be more to do.
func (q *Queue) Changed() <-chan struct{} { return q.changed }

func subject(d *webhooksv1.Delivery) string {
	return subjects.Delivery(d.GetOrgId(), d.GetWebhookId(), d.GetShown().GetId())
}

// Follow keeps the index until ctx ends; caughtUp is called once it has what was in the
// stream. Errors: the stream cannot be followed.
func (q *Queue) Follow(ctx context.Context, caughtUp func()) error {
	stream, err := q.js.Stream(ctx, subjects.StreamDeliveries)
	if err != nil {
		return fmt.Errorf("open the stream of deliveries: %w", err)
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return fmt.Errorf("follow deliveries: %w", err)
	}
	last := stream.CachedInfo().State.LastSeq
	if stream.CachedInfo().State.Msgs == 0 {
		last = 0
	}
	var once sync.Once
	if last == 0 {
		once.Do(caughtUp)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("follow deliveries: %w", err)
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	for {
		msg, err := messages.Next()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("follow deliveries: %w", err)
		}
		about, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("follow deliveries: %w", err)
		}
		q.apply(msg.Subject(), msg.Data(), about.Sequence.Stream)
		if about.Sequence.Stream >= last {
			once.Do(caughtUp)
		}
	}
}

// apply takes a state from the stream; one that cannot be read leaves the index as it is.
func (q *Queue) apply(subject string, data []byte, sequence uint64) {
	d := &webhooksv1.Delivery{}
	if proto.Unmarshal(data, d) != nil || d.GetShown() == nil {
		return
	}
	d.Body = nil
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.entries[subject].sequence >= sequence {
		return
	}
	q.entries[subject] = Entry{Delivery: d, sequence: sequence}
	delete(q.pending, subject)
	if d.GetShown().GetStatus() == delivery.Pending {
		q.pending[subject] = true
	}
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// Put writes a delivery's next state after the one that e has. Errors: ErrLost.
func (q *Queue) Put(ctx context.Context, e Entry) (Entry, error) {
	data, err := proto.Marshal(e.Delivery)
	if err != nil {
		return Entry{}, fmt.Errorf("write a delivery: %w", err)
	}
	to := subject(e.Delivery)
	ack, err := q.js.PublishMsg(ctx, &nats.Msg{Subject: to, Data: data}, jetstream.WithExpectLastSequencePerSubject(e.sequence))
	var refused *jetstream.APIError
	if errors.As(err, &refused) && refused.ErrorCode == wrongLastSequence {
		return Entry{}, fmt.Errorf("%w: %s", ErrLost, to)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("write a delivery: %w", err)
	}
	q.apply(to, data, ack.Sequence)
	return Entry{Delivery: e.Delivery, sequence: ack.Sequence}, nil
}

// Body is what an entry sends. Errors: ErrLost when it is no more, or another state.
func (q *Queue) Body(ctx context.Context, e Entry) ([]byte, error) {
	stream, err := q.js.Stream(ctx, subjects.StreamDeliveries)
	if err != nil {
		return nil, fmt.Errorf("open the stream of deliveries: %w", err)
	}
	msg, err := stream.GetMsg(ctx, e.sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, ErrLost
	}
	if err != nil {
		return nil, fmt.Errorf("read a delivery: %w", err)
	}
	d := &webhooksv1.Delivery{}
	if err := proto.Unmarshal(msg.Data, d); err != nil {
		return nil, fmt.Errorf("read a delivery: %w", err)
	}
	return d.GetBody(), nil
}

func (e Entry) copy() Entry { return Entry{Delivery: proto.CloneOf(e.Delivery), sequence: e.sequence} }

// Find returns a delivery of a webhook.
func (q *Queue) Find(org, webhook, id string) (Entry, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, ok := q.entries[subjects.Delivery(org, webhook, id)]
	if !ok {
		return Entry{}, false
	}
	return e.copy(), true
}

// Of are the deliveries of a webhook, those of the newest events first.
func (q *Queue) Of(org, webhook string) []Entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []Entry
	for _, e := range q.entries {
		if e.GetOrgId() == org && e.GetWebhookId() == webhook {
			all = append(all, e.copy())
		}
	}
	slices.SortFunc(all, func(a, b Entry) int {
		return cmp.Compare(b.GetShown().GetEventSequence(), a.GetShown().GetEventSequence())
	})
	return all
}

// Due are pending deliveries whose time has come, the longest due first, and when the
// next one is due; zero for none.
func (q *Queue) Due(now time.Time) (due []Entry, next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for s := range q.pending {
		e := q.entries[s]
		at := e.GetDueAt().AsTime()
		switch {
		case !at.After(now):
			due = append(due, e.copy())
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	slices.SortFunc(due, func(a, b Entry) int {
		return cmp.Or(a.GetDueAt().AsTime().Compare(b.GetDueAt().AsTime()), cmp.Compare(a.GetShown().GetEventSequence(), b.GetShown().GetEventSequence()))
	})
	return due, next
}

// Waiting is how many deliveries are pending, and when the oldest of them was made.
func (q *Queue) Waiting() (count int, since time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for s := range q.pending {
		if made := q.entries[s].GetShown().GetCreatedAt().AsTime(); count == 0 || made.Before(since) {
			since = made
		}
		count++
	}
	return count, since
}

// Sweep forgets what the stream no longer has.
func (q *Queue) Sweep(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for s, e := range q.entries {
		if now.Sub(e.GetShown().GetCreatedAt().AsTime()) > 2*natsconn.DeliveriesKept {
			delete(q.entries, s)
			delete(q.pending, s)
		}
	}
}
