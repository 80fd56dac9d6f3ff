package apikey_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/identity/apikey"
)

var (
	hash = sha256.Sum256([]byte("slk_x"))
	end  = gwt.Start().Add(72 * time.Hour)
)

func story(t *testing.T) *gwt.Story[apikey.State, apikey.Command] {
	return gwt.New(t, apikey.Decider())
}

func created() *identityv1.ApiKeyCreated {
	return &identityv1.ApiKeyCreated{
		KeyId: "k", OrgId: "acme", OperatorId: "ada", Name: "ci", Prefix: "slk_x", KeySha256: hash[:],
		Scopes: []string{"deploy:read"}, ExpiresAt: timestamppb.New(end),
	}
}

func used(days int) *identityv1.ApiKeyUsed {
	return &identityv1.ApiKeyUsed{Day: timestamppb.New(gwt.Start().Add(time.Duration(days) * 24 * time.Hour))}
}

func TestAKeyIsMadeUsedAndRevoked(t *testing.T) {
	t.Parallel()
	make1 := apikey.Create{ID: "k", Org: "acme", Operator: "ada", Name: "ci", Prefix: "slk_x", KeySHA256: hash, Scopes: []string{"deploy:read"}, ExpiresAt: end}
	story(t).When(make1).Then(created()).
		When(make1).ThenErrorIs(apikey.ErrExists).
		When(apikey.Use{}).Then(used(0)).
		When(apikey.Use{}).ThenNothing().
		At(gwt.Start().Add(25 * time.Hour)).When(apikey.Use{}).Then(used(1)).
		When(apikey.Revoke{}).Then(&identityv1.ApiKeyRevoked{}).
		When(apikey.Revoke{}).ThenErrorIs(apikey.ErrUnknown).
		When(apikey.Use{}).ThenErrorIs(apikey.ErrUnknown)
	story(t).At(end).When(make1).ThenErrorIs(apikey.ErrMalformed)
	make1.KeySHA256 = [sha256.Size]byte{}
	story(t).When(make1).ThenErrorIs(apikey.ErrMalformed)
	story(t).When(apikey.Revoke{}).ThenErrorIs(apikey.ErrUnknown)
}

func TestOnlyALiveKeyIsACredential(t *testing.T) {
	t.Parallel()
	if got := story(t).Given(created()).State().Credentials(); len(got) != 1 || got[0].Hash != hash || got[0].Org != "acme" || !got[0].Expires.Equal(end) {
		t.Errorf("got %v", got)
	}
	if got := story(t).Given(created(), &identityv1.ApiKeyRevoked{}).State().Credentials(); got != nil {
		t.Errorf("a revoked one gives %v", got)
	}
}

// A new event of the schema needs a fold and a line in this test.
func TestEveryEventOfTheSchemaHasAFold(t *testing.T) {
	t.Parallel()
	alive := story(t).Given(created()).State()
	samples := map[string]struct {
		before apikey.State
		event  proto.Message
	}{
		"ApiKeyCreated": {apikey.State{}, created()},
		"ApiKeyUsed":    {alive, used(1)},
		"ApiKeyRevoked": {alive, &identityv1.ApiKeyRevoked{}},
	}
	messages := identityv1.File_slipway_identity_v1_apikey_events_proto.Messages()
	for i := range messages.Len() {
		name := string(messages.Get(i).Name())
		sample, ok := samples[name]
		event := eventstore.Recorded{Event: eventstore.Event{Payload: sample.event, Time: gwt.Start()}}
		if !ok || cmp.Equal(apikey.Evolve(sample.before, event), sample.before) {
			t.Errorf("%s has no fold", name)
		}
	}
}
