package webhooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/caller"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/webhooks/delivery"
	"github.com/slipway-paas/slipway/services/webhooks/queue"
	"github.com/slipway-paas/slipway/services/webhooks/sender"
	"github.com/slipway-paas/slipway/services/webhooks/webhook"
)

const (
	// maxWebhooks bounds those of one organization.
	maxWebhooks    = 20
	maxDescription = 256
	// maxListed and maxReplayed bound one answer and one replay.
	maxListed   = 100
	maxReplayed = 1000
	seenWithin  = 2 * time.Second
)

// server answers WebhookService.
type server struct {
	webhooksv1.UnimplementedWebhookServiceServer
	*Service
}

// caller is who calls, when they may manage what their organization is connected to.
// It is the one place that binds a call to an organization.
func (s server) caller(ctx context.Context) (*identityv1.Principal, error) {
	if s.Ready() != nil {
		return nil, problem.Unavailable("Slipway is starting and does not know its webhooks yet; try again in a second.", time.Second)
	}
	p := &identityv1.Principal{}
	if err := caller.Incoming(ctx, p); err != nil || p.GetOperatorId() == "" || !subjects.ValidToken(p.GetOrgId()) || p.GetOrgId() == subjects.Platform {
		return nil, problem.Unauthorized("The call names no operator and organization.")
	}
	if !access.AtLeast(p.GetRole(), access.RoleAdmin) {
		return nil, problem.Forbidden("Your role in the organization does not allow this; it needs admin.")
	}
	return p, nil
}

// own is who calls, and a webhook of their organization.
func (s server) own(ctx context.Context, id string) (*identityv1.Principal, webhook.State, error) {
	p, err := s.caller(ctx)
	if err != nil {
		return nil, webhook.State{}, err
	}
	state, ok := s.known.find(p.GetOrgId(), id)
	if !ok {
		return nil, webhook.State{}, noWebhook()
	}
	return p, state, nil
}

func noWebhook() error {
	return problem.NotFound("There is no such webhook in this organization; GET /api/v1/webhooks lists them.")
}

func (s server) command(ctx context.Context, p *identityv1.Principal, id string, c webhook.Command) (webhook.State, error) {
	result, err := s.webhooks.Handle(ctx, decider.Command[webhook.Command]{
		Aggregate: subjects.Of(p.GetOrgId(), subjects.Webhook, id), Command: c, Actor: p.GetOperatorId(),
	})
	if err != nil {
		return webhook.State{}, fmt.Errorf("%T: %w", c, err)
	}
	ctx, cancel := context.WithTimeout(ctx, seenWithin)
	defer cancel()
	if err := s.known.wait(ctx, result.Sequence); err != nil {
		return webhook.State{}, problem.Unavailable("It is done, and does not count everywhere yet; look again in a moment.", time.Second)
	}
	return result.State, nil
}

// answer makes an error of the inside one for the outside.
func (s server) answer(ctx context.Context, doing string, err error) error {
	var own *problem.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, webhook.ErrUnknown), errors.Is(err, seal.ErrDestroyed):
		return noWebhook()
	case errors.Is(err, eventstore.ErrConflict), errors.Is(err, queue.ErrLost):
		return problem.Conflict("Others are changing the same at the same time; look at it, and try again.")
	case errors.Is(err, eventstore.ErrUnavailable):
		return problem.Unavailable("The event log is not answering; whether it was done is not known. Look, and try again.", time.Second)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	s.deps.Log.ErrorContext(ctx, "could not "+doing, "error", err)
	return problem.From(err)
}

// CreateWebhook implements webhooksv1.WebhookServiceServer.
func (s server) CreateWebhook(ctx context.Context, in *webhooksv1.CreateWebhookRequest) (*webhooksv1.CreateWebhookResponse, error) {
	p, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.faults(p.GetOrgId(), in); err != nil {
		return nil, err
	}
	if len(s.known.of(p.GetOrgId())) >= maxWebhooks {
		return nil, problem.Limit(fmt.Sprintf("The organization has %d webhooks, which is as many as it may have; delete some first.", maxWebhooks), 0)
	}
	id, secret := newID(), sender.NewSecret()
	target, err := s.seal(ctx, p.GetOrgId(), id, map[string]string{targetURL: in.GetUrl(), targetSecret: secret})
	if err != nil {
		return nil, s.answer(ctx, "create a webhook", err)
	}
	state, err := s.command(ctx, p, id, webhook.Create{
		ID: id, Org: p.GetOrgId(), By: p.GetOperatorId(), Description: strings.TrimSpace(in.GetDescription()),
		Types: in.GetTypes(), Aggregates: in.GetAggregates(), Target: target,
	})
	if err != nil {
		return nil, s.answer(ctx, "create a webhook", err)
	}
	return &webhooksv1.CreateWebhookResponse{Webhook: shown(state, in.GetUrl()), Secret: secret}, nil
}

func (s server) faults(org string, in *webhooksv1.CreateWebhookRequest) error {
	var faults []problem.Field
	if why := s.guard.URL(in.GetUrl()); why != "" {
		faults = append(faults, problem.Field{Field: "url", Message: why})
	}
	if utf8.RuneCountInString(in.GetDescription()) > maxDescription || strings.ContainsFunc(in.GetDescription(), func(r rune) bool { return !unicode.IsPrint(r) }) {
		faults = append(faults, problem.Field{Field: "description", Message: fmt.Sprintf("must have at most %d printable characters", maxDescription)})
	}
	if _, err := cloudevents.Select(org, in.GetTypes(), in.GetAggregates()); err != nil {
		for _, f := range problem.From(err).Fields {
			f.Field += "s"
			faults = append(faults, f)
		}
	}
	if len(faults) > 0 {
		return problem.Validation(faults)
	}
	return nil
}

func (s server) seal(ctx context.Context, org, id string, target map[string]string) ([]byte, error) {
	_, sealed, err := s.deps.Seal.Seal(ctx, subjects.Of(org, subjects.Webhook, id), target)
	return sealed, err
}

func (s server) open(ctx context.Context, w webhook.State) (map[string]string, error) {
	return s.deps.Seal.Open(ctx, subjects.Of(w.Org, subjects.Webhook, w.ID), w.Target)
}

func shown(w webhook.State, url string) *webhooksv1.Webhook {
	out := &webhooksv1.Webhook{
		Id: w.ID, Url: url, Description: w.Description, Types: w.Types, Aggregates: w.Aggregates,
		CreatedBy: w.CreatedBy, CreatedAt: timestamppb.New(w.CreatedAt), Status: "enabled",
	}
	if !w.Enabled() {
		out.Status, out.DisabledReason = "disabled", w.DisabledReason
	}
	return out
}

// ListWebhooks implements webhooksv1.WebhookServiceServer.
func (s server) ListWebhooks(ctx context.Context, _ *webhooksv1.ListWebhooksRequest) (*webhooksv1.ListWebhooksResponse, error) {
	p, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	res := &webhooksv1.ListWebhooksResponse{}
	for _, w := range s.known.of(p.GetOrgId()) {
		target, err := s.open(ctx, w)
		if errors.Is(err, seal.ErrDestroyed) {
			continue // deleted a moment ago
		}
		if err != nil {
			return nil, s.answer(ctx, "list webhooks", err)
		}
		res.Webhooks = append(res.Webhooks, shown(w, target[targetURL]))
	}
	return res, nil
}

// DeleteWebhook implements webhooksv1.WebhookServiceServer.
func (s server) DeleteWebhook(ctx context.Context, in *webhooksv1.DeleteWebhookRequest) (*webhooksv1.DeleteWebhookResponse, error) {
	p, w, err := s.own(ctx, in.GetId())
	if err != nil {
		return nil, err
	}
	if _, err := s.command(ctx, p, w.ID, webhook.Delete{By: p.GetOperatorId()}); err != nil {
		return nil, s.answer(ctx, "delete a webhook", err)
	}
	if err := s.deps.Seal.Destroy(ctx, subjects.Of(w.Org, subjects.Webhook, w.ID)); err != nil {
		return nil, s.answer(ctx, "destroy a webhook's key", err)
	}
	return &webhooksv1.DeleteWebhookResponse{Message: "Deleted"}, nil
}

// RotateWebhookSecret implements webhooksv1.WebhookServiceServer.
func (s server) RotateWebhookSecret(ctx context.Context, in *webhooksv1.RotateWebhookSecretRequest) (*webhooksv1.RotateWebhookSecretResponse, error) {
	p, w, err := s.own(ctx, in.GetId())
	if err != nil {
		return nil, err
	}
	target, err := s.open(ctx, w)
	if err != nil {
		return nil, s.answer(ctx, "rotate a webhook's secret", err)
	}
	secret := sender.NewSecret()
	sealed, err := s.seal(ctx, w.Org, w.ID, map[string]string{targetURL: target[targetURL], targetSecret: secret, targetPrevious: target[targetSecret]})
	if err != nil {
		return nil, s.answer(ctx, "rotate a webhook's secret", err)
	}
	state, err := s.command(ctx, p, w.ID, webhook.Rotate{Target: sealed})
	if err != nil {
		return nil, s.answer(ctx, "rotate a webhook's secret", err)
	}
	return &webhooksv1.RotateWebhookSecretResponse{Webhook: shown(state, target[targetURL]), Secret: secret}, nil
}

// EnableWebhook implements webhooksv1.WebhookServiceServer.
func (s server) EnableWebhook(ctx context.Context, in *webhooksv1.EnableWebhookRequest) (*webhooksv1.EnableWebhookResponse, error) {
	p, w, err := s.own(ctx, in.GetId())
	if err != nil {
		return nil, err
	}
	target, err := s.open(ctx, w)
	if err != nil {
		return nil, s.answer(ctx, "enable a webhook", err)
	}
	state, err := s.command(ctx, p, w.ID, webhook.Enable{By: p.GetOperatorId()})
	if err != nil {
		return nil, s.answer(ctx, "enable a webhook", err)
	}
	return &webhooksv1.EnableWebhookResponse{Webhook: shown(state, target[targetURL])}, nil
}

// ListWebhookDeliveries implements webhooksv1.WebhookServiceServer.
func (s server) ListWebhookDeliveries(ctx context.Context, in *webhooksv1.ListWebhookDeliveriesRequest) (*webhooksv1.ListWebhookDeliveriesResponse, error) {
	_, w, err := s.own(ctx, in.GetId())
	if err != nil {
		return nil, err
	}
	res := &webhooksv1.ListWebhookDeliveriesResponse{}
	for _, e := range s.queue.Of(w.Org, w.ID) {
		if len(res.Deliveries) == maxListed {
			break
		}
		res.Deliveries = append(res.Deliveries, e.GetShown())
	}
	return res, nil
}

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
