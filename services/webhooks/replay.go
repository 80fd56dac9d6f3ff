package webhooks

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/webhooks/delivery"
	"github.com/slipway-paas/slipway/services/webhooks/queue"
	"github.com/slipway-paas/slipway/services/webhooks/webhook"
)

// maxReplayed bounds one replay.
const maxReplayed = 1000

// ReplayWebhook implements webhooksv1.WebhookServiceServer.
func (s server) ReplayWebhook(ctx context.Context, in *webhooksv1.ReplayWebhookRequest) (*webhooksv1.ReplayWebhookResponse, error) {
	_, w, err := s.own(ctx, in.GetId())
	if err != nil {
		return nil, err
	}
	if !w.Enabled() {
		return nil, problem.InvalidState("The webhook is disabled; enable it first.")
	}
	if in.GetDeliveryId() == "" {
		return s.replayAfter(ctx, w, in.GetAfterSequence())
	}
	if in.GetAfterSequence() != 0 {
		return nil, problem.Validation([]problem.Field{{Field: "after_sequence", Message: "must be left out when there is a delivery_id"}})
	}
	if !subjects.ValidToken(in.GetDeliveryId()) {
		return nil, noDelivery()
	}
	e, ok := s.queue.Find(w.Org, w.ID, in.GetDeliveryId())
	if !ok {
		return nil, noDelivery()
	}
	if err := s.again(ctx, e); err != nil {
		return nil, s.answer(ctx, "replay a delivery", err)
	}
	return &webhooksv1.ReplayWebhookResponse{Replayed: 1, LastSequence: e.GetShown().GetEventSequence()}, nil
}

func noDelivery() error {
	return problem.NotFound("There is no such delivery of this webhook; GET /api/v1/webhooks/{id}/deliveries lists the last ones.")
}

// again begins a delivery that has ended from its first attempt.
func (s server) again(ctx context.Context, e queue.Entry) error {
	if e.GetShown().GetStatus() == delivery.Pending {
		return problem.InvalidState("The delivery is under way already; wait until it has ended.")
	}
	body, err := s.queue.Body(ctx, e)
	if err != nil {
		return err
	}
	now := timestamppb.New(s.deps.Now())
	e.Body, e.DueAt, e.FirstAttemptAt = body, now, nil
	old := e.GetShown()
	e.Shown = &webhooksv1.WebhookDelivery{
		Id: old.GetId(), EventType: old.GetEventType(), EventSequence: old.GetEventSequence(), Status: delivery.Pending,
		LastStatus: old.GetLastStatus(), CreatedAt: now, LastAttemptAt: old.GetLastAttemptAt(), NextAttemptAt: now,
	}
	_, err = s.queue.Put(ctx, e)
	return err
}

// errEnough ends a replay that has had all that it may.
var errEnough = errors.New("enough")

func (s server) replayAfter(ctx context.Context, w webhook.State, after uint64) (*webhooksv1.ReplayWebhookResponse, error) {
	of, err := cloudevents.Select(w.Org, w.Types, w.Aggregates)
	if err != nil {
		return nil, err
	}
	filters, err := of.Filters()
	if err != nil {
		return nil, s.answer(ctx, "replay events", err)
	}
	res := &webhooksv1.ReplayWebhookResponse{LastSequence: after}
	following, stop := context.WithCancel(ctx)
	defer stop()
	err = s.deps.Store.Follow(following, after, func(ctx context.Context, events []eventstore.Recorded) error {
		for _, rec := range events {
			if res.Replayed == maxReplayed {
				return errEnough
			}
			done, err := s.replay(ctx, w, rec)
			if err != nil {
				return err
			}
			if done {
				res.Replayed++
			}
			res.LastSequence = rec.Sequence
		}
		return nil
	}, stop, filters...)
	if err != nil && !errors.Is(err, errEnough) {
		return nil, s.answer(ctx, "replay events", err)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return res, nil
}

// replay delivers an event again, and reports whether it was not under way already.
func (s server) replay(ctx context.Context, w webhook.State, rec eventstore.Recorded) (bool, error) {
	if !rec.Readable() || !w.Selects(rec) {
		return false, nil
	}
	var err error
	if e, ok := s.queue.Find(w.Org, w.ID, delivery.ID(w.ID, rec.Sequence)); !ok {
		err = s.enqueue(ctx, w, rec)
	} else if e.GetShown().GetStatus() == delivery.Pending {
		return false, nil
	} else {
		err = s.again(ctx, e)
	}
	if errors.Is(err, queue.ErrLost) {
		return false, nil
	}
	return err == nil, err
}
