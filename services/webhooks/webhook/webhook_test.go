package webhook_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/services/webhooks/webhook"
)

func TestAWebhooksLife(t *testing.T) {
	t.Parallel()
	created := &webhooksv1.WebhookCreated{WebhookId: "w", OrgId: "acme", CreatedBy: "op", Target: []byte("sealed")}
	create := webhook.Create{ID: "w", Org: "acme", By: "op", Target: []byte("sealed")}
	begin := func() *gwt.Story[webhook.State, webhook.Command] { return gwt.New(t, webhook.Decider()) }

	begin().When(create).Then(created)
	begin().When(webhook.Create{ID: "w", Org: "acme"}).ThenErrorIs(webhook.ErrMalformed)
	begin().When(webhook.Delete{}).ThenErrorIs(webhook.ErrUnknown)
	begin().Given(created).When(create).ThenErrorIs(webhook.ErrExists)
	begin().Given(created).When(webhook.Update{By: "op", Description: "d", Types: []string{"T"}, Target: []byte("new"), Was: []byte("sealed")}).
		Then(&webhooksv1.WebhookUpdated{UpdatedBy: "op", Description: "d", Types: []string{"T"}, Target: []byte("new")})
	begin().Given(created).When(webhook.Update{Was: []byte("sealed")}).ThenErrorIs(webhook.ErrMalformed)
	for _, late := range []webhook.Command{webhook.Update{Target: []byte("n"), Was: []byte("sealed")}, webhook.Rotate{Target: []byte("n"), Was: []byte("sealed")}} {
		begin().Given(created, &webhooksv1.WebhookSecretRotated{Target: []byte("rotated")}).When(late).ThenErrorIs(webhook.ErrChanged)
		begin().Given(created, &webhooksv1.WebhookUpdated{Target: []byte("updated")}).When(late).ThenErrorIs(webhook.ErrChanged)
	}
	begin().Given(created).When(webhook.Rotate{Target: []byte("new"), Was: []byte("sealed")}).
		Then(&webhooksv1.WebhookSecretRotated{Target: []byte("new"), PreviousUntil: timestamppb.New(gwt.Start().Add(time.Second + webhook.PreviousSigns))})
	begin().Given(created).When(webhook.Enable{By: "op"}).ThenNothing()
	begin().Given(created).When(webhook.Disable{Reason: webhook.Gone, Since: 1}).Then(&webhooksv1.WebhookDisabled{Reason: webhook.Gone})
	begin().Given(created, &webhooksv1.WebhookDisabled{Reason: webhook.Gone}, &webhooksv1.WebhookEnabled{}).When(webhook.Disable{Reason: webhook.Failing, Since: 1}).ThenNothing()
	begin().Given(created, &webhooksv1.WebhookDisabled{Reason: webhook.Gone}).When(webhook.Disable{Reason: webhook.Failing}).ThenNothing()
	begin().Given(created, &webhooksv1.WebhookDisabled{Reason: webhook.Gone}).When(webhook.Enable{By: "op"}).Then(&webhooksv1.WebhookEnabled{EnabledBy: "op"})
	begin().Given(created).When(webhook.Delete{By: "op"}).Then(&webhooksv1.WebhookDeleted{DeletedBy: "op"})
	for _, late := range []webhook.Command{webhook.Update{Target: []byte("x")}, webhook.Rotate{Target: []byte("x")}, webhook.Enable{}, webhook.Disable{}, webhook.Delete{}} {
		begin().Given(created, &webhooksv1.WebhookDeleted{}).When(late).ThenErrorIs(webhook.ErrUnknown)
	}
}
