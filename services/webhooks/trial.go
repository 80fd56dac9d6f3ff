package webhooks

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/webhooks/delivery"
	"github.com/slipway-paas/slipway/services/webhooks/sender"
)

const (
	// trialType is the type of a message that is no event.
	trialType = "WebhookTest"
	// trialTime is less than callers of the API wait; maxTrials bounds those at once.
	trialTime = 10 * time.Second
	maxTrials = 8
)

// TestWebhook implements webhooksv1.WebhookServiceServer.
func (s server) TestWebhook(ctx context.Context, in *webhooksv1.TestWebhookRequest) (*webhooksv1.TestWebhookResponse, error) {
	p, w, err := s.own(ctx, in.GetId())
	if err != nil {
		return nil, err
	}
	select {
	case s.trials <- struct{}{}:
		defer func() { <-s.trials }()
	default:
		return nil, problem.Unavailable("Too many webhooks are being tested at this moment; try again in a few seconds.", time.Second)
	}
	now, id := s.deps.Now().UTC(), newID()
	body, err := json.Marshal(cloudevents.Event{
		SpecVersion: "1.0", ID: id, Type: trialType, Source: "webhooks", Subject: subjects.Of(w.Org, subjects.Webhook, w.ID).String(),
		Time: now.Truncate(time.Millisecond), Actor: p.GetOperatorId(), Data: map[string]any{"webhook_id": w.ID},
	})
	if err != nil {
		return nil, s.answer(ctx, "test a webhook", fmt.Errorf("write a test message as JSON: %w", err))
	}
	target, err := s.target(ctx, w)
	if err != nil {
		return nil, s.answer(ctx, "test a webhook", err)
	}
	m := sender.Message{ID: "msg_" + id, URL: target.url, Secrets: target.secrets, Body: body}
	bounded, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	answer, err := s.sender.Send(bounded, m, now)
	if err != nil {
		return nil, s.answer(ctx, "test a webhook", err)
	}
	return &webhooksv1.TestWebhookResponse{Id: m.ID, Accepted: delivery.Accepted(answer.Status), Status: uint32(answer.Status), Error: answer.Why}, nil
}
