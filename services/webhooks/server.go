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
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/webhooks/queue"
	"github.com/slipway-paas/slipway/services/webhooks/sender"
	"github.com/slipway-paas/slipway/services/webhooks/webhook"
)

const (
	// maxWebhooks bounds those of one organization.
	maxWebhooks    = 20
	maxDescription = 256
	// maxListed bounds one answer.
	maxListed  = 100
	seenWithin = 2 * time.Second
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

// command gives one; given again under the same ID, its result is the first one's.
func (s server) command(ctx context.Context, p *identityv1.Principal, id string, c webhook.Command) (webhook.State, error) {
	command := rpc.CommandID(ctx)
	result, err := s.webhooks.Handle(ctx, decider.Command[webhook.Command]{
		Aggregate: subjects.Of(p.GetOrgId(), subjects.Webhook, id), Command: c, Actor: p.GetOperatorId(), ID: command, Again: command != "",
	})
	if err != nil {
		return webhook.State{}, fmt.Errorf("%T: %w", c, err)
	}
	return result.State, s.seen(ctx, result.Sequence)
}

// seen waits until what was written counts here.
func (s server) seen(ctx context.Context, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, seenWithin)
	defer cancel()
	if err := s.known.wait(ctx, sequence); err != nil {
		return problem.Unavailable("It is done, and does not count everywhere yet; look again in a moment.", time.Second)
	}
	return nil
}

// before is what came of the call when it was made before, under the same ID.
func (s server) before(ctx context.Context, org, id string) (w webhook.State, found bool, err error) {
	command := rpc.CommandID(ctx)
	if command == "" {
		return webhook.State{}, false, nil
	}
	result, found, err := s.webhooks.Written(ctx, subjects.Of(org, subjects.Webhook, id), command)
	if err != nil {
		return webhook.State{}, false, fmt.Errorf("look for an earlier attempt: %w", err)
	}
	if found {
		err = s.seen(ctx, result.Sequence)
	}
	return result.State, found, err
}

// answer makes an error of the inside one for the outside.
func (s server) answer(ctx context.Context, doing string, err error) error {
	var own *problem.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, webhook.ErrUnknown), errors.Is(err, seal.ErrDestroyed):
		return noWebhook()
	case errors.Is(err, eventstore.ErrConflict), errors.Is(err, queue.ErrLost), errors.Is(err, webhook.ErrChanged):
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
	id := rpc.NewID(ctx, subjects.Webhook)
	state, made, err := s.before(ctx, p.GetOrgId(), id)
	if err == nil && !made {
		state, err = s.create(ctx, p, id, in)
	}
	var target map[string]string
	if err == nil {
		// Another attempt may have been faster: the secret is the one in the log.
		target, err = s.open(ctx, state)
	}
	if err != nil {
		return nil, s.answer(ctx, "create a webhook", err)
	}
	return &webhooksv1.CreateWebhookResponse{Webhook: shown(state, target[targetURL]), Secret: target[targetSecret]}, nil
}

func (s server) create(ctx context.Context, p *identityv1.Principal, id string, in *webhooksv1.CreateWebhookRequest) (webhook.State, error) {
	if err := s.faults(p.GetOrgId(), in); err != nil {
		return webhook.State{}, err
	}
	if len(s.known.of(p.GetOrgId())) >= maxWebhooks {
		return webhook.State{}, problem.Limit(fmt.Sprintf("The organization has %d webhooks, which is as many as it may have; delete some first.", maxWebhooks), 0)
	}
	target, err := s.seal(ctx, p.GetOrgId(), id, map[string]string{targetURL: in.GetUrl(), targetSecret: sender.NewSecret()})
	if err != nil {
		return webhook.State{}, err
	}
	return s.command(ctx, p, id, webhook.Create{
		ID: id, Org: p.GetOrgId(), By: p.GetOperatorId(), Description: strings.TrimSpace(in.GetDescription()),
		Types: in.GetTypes(), Aggregates: in.GetAggregates(), Target: target,
	})
}

// wanted is what people say of a webhook, when they make it and when they change it.
type wanted interface {
	GetUrl() string
	GetDescription() string
	GetTypes() []string
	GetAggregates() []string
}

func (s server) faults(org string, in wanted) error {
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

// GetWebhook implements webhooksv1.WebhookServiceServer.
func (s server) GetWebhook(ctx context.Context, in *webhooksv1.GetWebhookRequest) (*webhooksv1.GetWebhookResponse, error) {
	_, w, err := s.own(ctx, in.GetId())
	if err != nil {
		return nil, err
	}
	target, err := s.open(ctx, w)
	if err != nil {
		return nil, s.answer(ctx, "show a webhook", err)
	}
	return &webhooksv1.GetWebhookResponse{Webhook: shown(w, target[targetURL])}, nil
}

// UpdateWebhook implements webhooksv1.WebhookServiceServer.
func (s server) UpdateWebhook(ctx context.Context, in *webhooksv1.UpdateWebhookRequest) (*webhooksv1.UpdateWebhookResponse, error) {
	p, w, err := s.own(ctx, in.GetId())
	if err != nil {
		return nil, err
	}
	if err := s.faults(p.GetOrgId(), in); err != nil {
		return nil, err
	}
	target, err := s.open(ctx, w)
	if err != nil {
		return nil, s.answer(ctx, "change a webhook", err)
	}
	target[targetURL] = in.GetUrl()
	sealed, err := s.seal(ctx, w.Org, w.ID, target)
	if err != nil {
		return nil, s.answer(ctx, "change a webhook", err)
	}
	state, err := s.command(ctx, p, w.ID, webhook.Update{
		By: p.GetOperatorId(), Description: strings.TrimSpace(in.GetDescription()), Types: in.GetTypes(), Aggregates: in.GetAggregates(), Target: sealed, Was: w.Target,
	})
	if err != nil {
		return nil, s.answer(ctx, "change a webhook", err)
	}
	return &webhooksv1.UpdateWebhookResponse{Webhook: shown(state, in.GetUrl())}, nil
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
	state, done, err := s.before(ctx, w.Org, w.ID)
	if err == nil && !done {
		state, err = s.rotate(ctx, p, w)
	}
	var target map[string]string
	if err == nil {
		target, err = s.open(ctx, state)
	}
	if err != nil {
		return nil, s.answer(ctx, "rotate a webhook's secret", err)
	}
	return &webhooksv1.RotateWebhookSecretResponse{Webhook: shown(state, target[targetURL]), Secret: target[targetSecret]}, nil
}

func (s server) rotate(ctx context.Context, p *identityv1.Principal, w webhook.State) (webhook.State, error) {
	target, err := s.open(ctx, w)
	if err != nil {
		return webhook.State{}, err
	}
	sealed, err := s.seal(ctx, w.Org, w.ID, map[string]string{targetURL: target[targetURL], targetSecret: sender.NewSecret(), targetPrevious: target[targetSecret]})
	if err != nil {
		return webhook.State{}, err
	}
	return s.command(ctx, p, w.ID, webhook.Rotate{Target: sealed, Was: w.Target})
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
