package eventcredential_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/identity/eventcredential"
)

var end = gwt.Start().Add(72 * time.Hour)

func story(t *testing.T) *gwt.Story[eventcredential.State, eventcredential.Command] {
	return gwt.New(t, eventcredential.Decider())
}

func created() *identityv1.EventCredentialCreated {
	return &identityv1.EventCredentialCreated{
		CredentialId: "c", OrgId: "acme", OperatorId: "ada", Name: "warehouse", PublicKey: "UABC", AfterSequence: 7, ExpiresAt: timestamppb.New(end),
	}
}

func TestACredentialIsMadeAndRevokedOnce(t *testing.T) {
	t.Parallel()
	make1 := eventcredential.Create{ID: "c", Org: "acme", Operator: "ada", Name: "warehouse", PublicKey: "UABC", After: 7, ExpiresAt: end}
	story(t).When(make1).Then(created()).
		When(make1).ThenErrorIs(eventcredential.ErrExists).
		When(eventcredential.Revoke{}).Then(&identityv1.EventCredentialRevoked{}).
		When(eventcredential.Revoke{}).ThenErrorIs(eventcredential.ErrUnknown).
		When(make1).ThenErrorIs(eventcredential.ErrExists)
	story(t).At(end).When(make1).ThenErrorIs(eventcredential.ErrMalformed)
	story(t).When(eventcredential.Revoke{}).ThenErrorIs(eventcredential.ErrUnknown)
	for _, secret := range []string{"SUABC", "AABC", ""} {
		make1.PublicKey = secret
		story(t).When(make1).ThenErrorIs(eventcredential.ErrMalformed)
	}
}

// A new event of the schema needs a fold and a line in this test.
func TestEveryEventOfTheSchemaHasAFold(t *testing.T) {
	t.Parallel()
	samples := map[string]struct {
		before eventcredential.State
		event  proto.Message
	}{
		"EventCredentialCreated": {eventcredential.State{}, created()},
		"EventCredentialRevoked": {story(t).Given(created()).State(), &identityv1.EventCredentialRevoked{}},
	}
	messages := identityv1.File_slipway_identity_v1_eventcredential_events_proto.Messages()
	for i := range messages.Len() {
		name := string(messages.Get(i).Name())
		sample, ok := samples[name]
		event := eventstore.Recorded{Event: eventstore.Event{Payload: sample.event, Time: gwt.Start().Add(time.Hour)}}
		if !ok || cmp.Equal(eventcredential.Evolve(sample.before, event), sample.before) {
			t.Errorf("%s has no fold", name)
		}
	}
}
