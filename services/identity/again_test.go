package identity_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity"
)

// events is how many there are of all kinds.
func (w *world) events() int {
	w.t.Helper()
	count := 0
	ctx, stop := context.WithCancel(w.t.Context())
	defer stop()
	if err := w.store.Follow(ctx, 0, func(_ context.Context, events []eventstore.Recorded) error {
		count += len(events)
		return nil
	}, stop, subjects.AllEvents); err != nil && ctx.Err() == nil {
		w.t.Fatal(err)
	}
	return count
}

// A gateway that lost the answer asks again, perhaps another process: it gets the same
// answer, secrets too, and nothing is done twice.
func TestACallMadeAgainGetsTheSameAnswerAndDoesNothingTwice(t *testing.T) {
	t.Parallel()
	tm := begun(t)
	principal, _ := tm.who(tm.tokens["ada"], tm.org)
	app, err := tm.oauth.RegisterApp(tm.by(principal), &identityv1.RegisterAppRequest{
		Principal: principal, Name: "Old", RedirectUris: []string{"https://client.example/callback"}, Scopes: []string{"deploy:read"}, Confidential: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func(w *world, under func(context.Context) context.Context) (proto.Message, error){
		"register": func(w *world, under func(context.Context) context.Context) (proto.Message, error) {
			return w.accounts.Register(under(t.Context()), &identityv1.RegisterRequest{Email: "zoe@example.com", Password: goodPassword, Name: "Zoe"})
		},
		"create an organization": func(w *world, under func(context.Context) context.Context) (proto.Message, error) {
			return w.orgs.CreateOrg(under(tm.ctx("ada")), &identityv1.CreateOrgRequest{Name: "Once"})
		},
		"invite": func(w *world, under func(context.Context) context.Context) (proto.Message, error) {
			return w.orgs.InviteMember(under(tm.ctx("ada")), &identityv1.InviteMemberRequest{OrgId: tm.org, Email: "guest@example.com", Role: "viewer"})
		},
		"create an API key": func(w *world, under func(context.Context) context.Context) (proto.Message, error) {
			return w.keys.CreateApiKey(under(tm.by(principal)), &identityv1.CreateApiKeyRequest{Name: "ci", Scopes: []string{"deploy:read"}})
		},
		"rotate an app's secret": func(w *world, under func(context.Context) context.Context) (proto.Message, error) {
			return w.oauth.RotateAppSecret(under(tm.by(principal)), &identityv1.RotateAppSecretRequest{Principal: principal, ClientId: app.GetApp().GetClientId()})
		},
		"register an OAuth app": func(w *world, under func(context.Context) context.Context) (proto.Message, error) {
			return w.oauth.RegisterApp(under(tm.by(principal)), &identityv1.RegisterAppRequest{
				Principal: principal, Name: "Bot", RedirectUris: []string{"https://client.example/callback"}, Scopes: []string{"deploy:read"}, Confidential: true,
			})
		},
	}
	for name, call := range calls {
		command, other := uuid.NewString(), uuid.NewString()
		under := func(ctx context.Context) context.Context { return rpc.WithCommandID(ctx, command) }
		first, err := call(tm.world, under)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before := tm.events()
		tm.clock.Pass(time.Hour)
		for _, w := range []*world{tm.world, tm.restart()} {
			again, err := call(w, under)
			if err != nil || !proto.Equal(again, first) {
				t.Errorf("%s again: %v, %v; want %v", name, again, err, first)
			}
		}
		if after := tm.events(); after != before {
			t.Errorf("%s again wrote %d events", name, after-before)
		}
		differs, err := call(tm.world, func(ctx context.Context) context.Context { return rpc.WithCommandID(ctx, other) })
		if name == "register" || name == "invite" {
			if err == nil {
				t.Errorf("%s by another call: %v", name, differs)
			}
			continue
		}
		if err != nil || proto.Equal(differs, first) {
			t.Errorf("%s by another call is the same: %v, %v", name, differs, err)
		}
	}
}

// What was made when the process died before it signed them in still signs them in.
func TestAnAccountWhoseAnswerWasLostHasItsSession(t *testing.T) {
	t.Parallel()
	w := begin(t, identity.Config{SessionTTL: 30 * 24 * time.Hour})
	ctx := rpc.WithCommandID(t.Context(), uuid.NewString())
	in := &identityv1.RegisterRequest{Email: "ada@example.com", Password: goodPassword, Name: "Ada"}
	first, err := w.accounts.Register(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.restart().accounts.Register(ctx, in)
	if err != nil || again.GetToken() != first.GetToken() {
		t.Fatalf("again: %v, %v", again, err)
	}
	if p, code := w.who(again.GetToken(), ""); code != 200 || p.GetOperatorId() != first.GetUser().GetId() {
		t.Errorf("the session speaks for %v, %d", p, code)
	}
}
