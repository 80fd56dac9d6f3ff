package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/eventstore"
	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/webhooks/delivery"
	"github.com/slipway-paas/slipway/services/webhooks/queue"
	"github.com/slipway-paas/slipway/services/webhooks/webhook"
)

const (
	consumerName = "webhooks"
	batchSize    = 100
	fetchWait    = time.Second
	ackWait      = 30 * time.Second
	retryPause   = time.Second
	// maxBody bounds an event as it is sent, in bytes.
	maxBody = 256 << 10
)

// dispatch makes deliveries of events, each at least once: an event counts as told when
// every webhook that it is for has its delivery. It goes on where any process ended.
func (s *Service) dispatch(ctx context.Context, consumer jetstream.Consumer) error {
	for ctx.Err() == nil {
		messages, err := fetch(consumer)
		if err == nil && len(messages) > 0 && ctx.Err() == nil {
			err = s.tellAll(ctx, messages)
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		s.deps.Log.WarnContext(ctx, "events wait to be told to webhooks", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
	return nil
}

// follower is the consumer that all processes share. It must be there before the first
// webhook is: it begins with what happens after it was made.
func (s *Service) follower(ctx context.Context) (jetstream.Consumer, error) {
	consumer, err := s.deps.JetStream.CreateOrUpdateConsumer(ctx, subjects.StreamEvents, jetstream.ConsumerConfig{
		Durable: consumerName, Description: "Makes deliveries to webhooks.", FilterSubject: subjects.AllEvents,
		DeliverPolicy: jetstream.DeliverNewPolicy, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxAckPending: 10 * batchSize,
	})
	if err != nil {
		return nil, fmt.Errorf("follow the log: %w", err)
	}
	return consumer, nil
}

// fetch returns what is there, or waits a while for something.
func fetch(consumer jetstream.Consumer) ([]jetstream.Msg, error) {
	batch, err := consumer.FetchNoWait(batchSize)
	if err != nil {
		return nil, fmt.Errorf("follow the log: %w", err)
	}
	var messages []jetstream.Msg
	for msg := range batch.Messages() {
		messages = append(messages, msg)
	}
	if len(messages) > 0 {
		return messages, nil
	}
	if batch, err = consumer.Fetch(1, jetstream.FetchMaxWait(fetchWait)); err != nil {
		return nil, fmt.Errorf("follow the log: %w", err)
	}
	for msg := range batch.Messages() {
		messages = append(messages, msg)
	}
	if err := batch.Error(); err != nil && len(messages) == 0 {
		return nil, fmt.Errorf("follow the log: %w", err)
	}
	return messages, nil
}

func (s *Service) tellAll(ctx context.Context, messages []jetstream.Msg) error {
	// Webhooks made before one of these events are in the log by now.
	last, err := s.deps.Store.LastSequence(ctx, subjects.KindFilter(subjects.Webhook))
	if err != nil {
		return err
	}
	if err := s.known.wait(ctx, last); err != nil {
		return err
	}
	for _, msg := range messages {
		rec, err := eventlog.Read(msg)
		if err != nil {
			return err
		}
		for _, w := range s.known.of(rec.Aggregate.Org) {
			if !w.Wants(rec) {
				continue
			}
			if err := s.enqueue(ctx, w, rec); err != nil && !errors.Is(err, queue.ErrLost) {
				return err
			}
		}
		if err := msg.Ack(); err != nil {
			return fmt.Errorf("note that an event was told: %w", err)
		}
	}
	return nil
}

// enqueue makes the delivery of an event to a webhook, or one that has ended begin
// again. Errors: queue.ErrLost when there is one that this process does not know yet.
func (s *Service) enqueue(ctx context.Context, w webhook.State, rec eventstore.Recorded) error {
	event, err := cloudevents.Render(rec)
	if err != nil {
		return err
	}
	body, err := json.Marshal(event)
	if err == nil && len(body) > maxBody {
		event.Data = nil
		body, err = json.Marshal(event)
	}
	if err != nil {
		return fmt.Errorf("write an event as JSON: %w", err)
	}
	now := timestamppb.New(s.deps.Now())
	id := delivery.ID(w.ID, rec.Sequence)
	entry, known := s.queue.Find(w.Org, w.ID, id)
	if known {
		// A delivery that is under way is not made twice.
		return queue.ErrLost
	}
	entry.Delivery = &webhooksv1.Delivery{
		WebhookId: w.ID, OrgId: w.Org, Body: body, DueAt: now,
		Shown: &webhooksv1.WebhookDelivery{
			Id: id, EventType: rec.Type(), EventSequence: rec.Sequence, Status: delivery.Pending, CreatedAt: now, NextAttemptAt: now,
		},
	}
	_, err = s.queue.Put(ctx, entry)
	return err
}
