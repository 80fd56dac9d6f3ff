package subscriptions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// What a consumer allows its reader.
const (
	// ackWithin is how long a reader may take before an event is given out again.
	ackWithin = 30 * time.Second
	// unacknowledged bounds events that are given out and wait for that.
	unacknowledged = 1000
	// askedAtOnce, askedBatch and askedFor bound a reader's questions.
	askedAtOnce = 64
	askedBatch  = 1000
	askedFor    = time.Minute
)

const (
	// tidyEvery is how often consumers are held against credentials, and strangerFor how
	// long one may be there that no credential is known for: another process may know it.
	tidyEvery   = time.Minute
	strangerFor = 2 * time.Minute
	// retryAfter is how soon a change that failed is made again, changeWithin how long
	// one may take.
	retryAfter   = time.Second
	changeWithin = 5 * time.Second
)

// consumers sees to it that each credential has its consumer of the log, made by us:
// who may make consumers may read with other filters, and have events sent anywhere.
type consumers struct {
	js    jetstream.JetStream
	known *directory
	now   func() time.Time
	log   *slog.Logger

	mu   sync.Mutex
	todo map[string]func(context.Context) error // by the credential's id
	wake chan struct{}
}

func newConsumers(js jetstream.JetStream, known *directory, now func() time.Time, log *slog.Logger) *consumers {
	return &consumers{js: js, known: known, now: now, log: log, todo: map[string]func(context.Context) error{}, wake: make(chan struct{}, 1)}
}

// changed has the consumers made and removed, soon.
func (k *consumers) changed(begun, ended []credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range begun {
		k.todo[c.id] = func(ctx context.Context) error { return k.make(ctx, c) }
	}
	for _, c := range ended {
		k.todo[c.id] = func(ctx context.Context) error { return k.remove(ctx, c.id) }
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *consumers) make(ctx context.Context, c credential) error {
	config := jetstream.ConsumerConfig{
		Durable:           subjects.SubscriptionConsumer(c.id),
		Description:       "An organization's own reader.",
		FilterSubject:     subjects.OrgEvents(c.org),
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		AckPolicy:         jetstream.AckExplicitPolicy,
		AckWait:           ackWithin,
		MaxAckPending:     unacknowledged,
		MaxWaiting:        askedAtOnce,
		MaxRequestBatch:   askedBatch,
		MaxRequestExpires: askedFor,
	}
	if c.after > 0 {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, c.after+1
	}
	_, err := k.js.CreateConsumer(ctx, subjects.StreamEvents, config)
	if errors.Is(err, jetstream.ErrConsumerExists) {
		return nil // of an older version; its place matters more than its bounds
	}
	if err != nil {
		return fmt.Errorf("make the consumer of the credential %s: %w", c.id, err)
	}
	return nil
}

func (k *consumers) remove(ctx context.Context, id string) error {
	err := k.js.DeleteConsumer(ctx, subjects.StreamEvents, subjects.SubscriptionConsumer(id))
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("remove the consumer of the credential %s: %w", id, err)
	}
	return nil
}

// run makes and removes consumers until ctx ends.
func (k *consumers) run(ctx context.Context) {
	tidy := time.NewTimer(0)
	defer tidy.Stop()
	for {
		var again <-chan time.Time
		if !k.work(ctx) {
			again = time.After(retryAfter)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-k.wake:
		case <-tidy.C:
			next := tidyEvery
			if err := k.tidy(ctx); err != nil && ctx.Err() == nil {
				k.log.WarnContext(ctx, "outsiders' consumers were not held against their credentials; that is tried again", "error", err)
				next = retryAfter
			}
			tidy.Reset(next)
		}
	}
}

// work does what is to do and reports whether all of it was done.
func (k *consumers) work(ctx context.Context) bool {
	k.mu.Lock()
	todo := k.todo
	k.todo = map[string]func(context.Context) error{}
	k.mu.Unlock()
	done := true
	for id, change := range todo {
		bounded, cancel := context.WithTimeout(ctx, changeWithin)
		err := change(bounded)
		cancel()
		if err == nil {
			continue
		}
		done = false
		if ctx.Err() == nil {
			k.log.WarnContext(ctx, "an outsider's consumer is not as it must be; that is tried again", "error", err)
		}
		k.mu.Lock()
		if _, newer := k.todo[id]; !newer {
			k.todo[id] = change
		}
		k.mu.Unlock()
	}
	return done
}

// tidy makes what is missing and removes what no credential is known for.
func (k *consumers) tidy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tidyEvery)
	defer cancel()
	stream, err := k.js.Stream(ctx, subjects.StreamEvents)
	if err != nil {
		return fmt.Errorf("look at the log: %w", err)
	}
	missing := k.known.all(k.now())
	var strangers []credential
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		id, outsiders := subjects.IsSubscriptionConsumer(info.Name)
		if _, known := missing[id]; known {
			delete(missing, id)
		} else if outsiders && k.now().Sub(info.Created) > strangerFor {
			strangers = append(strangers, credential{id: id})
		}
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("list the log's consumers: %w", err)
	}
	var begun []credential
	for _, c := range missing {
		begun = append(begun, c)
	}
	if len(begun)+len(strangers) > 0 {
		k.changed(begun, strangers)
	}
	return nil
}
