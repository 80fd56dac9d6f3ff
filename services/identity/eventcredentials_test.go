package identity_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func (tm *team) eventCredential(by string) (*identityv1.CreateEventCredentialResponse, error) {
	return tm.eventCredentials.CreateEventCredential(tm.as(tm.tokens[by], tm.org), &identityv1.CreateEventCredentialRequest{Name: "warehouse"})
}

func (tm *team) listed(by string) []*identityv1.EventCredential {
	tm.t.Helper()
	res, err := tm.eventCredentials.ListEventCredentials(tm.as(tm.tokens[by], tm.org), &identityv1.ListEventCredentialsRequest{})
	if err != nil {
		tm.t.Fatal(err)
	}
	return res.GetEventCredentials()
}

func TestAnEventCredentialsSeedIsShownOnceAndKeptNowhere(t *testing.T) {
	t.Parallel()
	tm := begun(t)
	for why, in := range map[string]*identityv1.CreateEventCredentialRequest{
		"without a name": {},
		"in the past":    {Name: "w", ExpiresAt: timestamppb.New(tm.clock.Now())},
	} {
		if _, err := tm.eventCredentials.CreateEventCredential(tm.as(tm.tokens["admin"], tm.org), in); status(err) != 422 {
			t.Errorf("%s: %v", why, err)
		}
	}
	end := tm.clock.Now().Add(48 * time.Hour)
	made, err := tm.eventCredentials.CreateEventCredential(tm.as(tm.tokens["admin"], tm.org), &identityv1.CreateEventCredentialRequest{
		Name: " warehouse ", AfterSequence: 7, ExpiresAt: timestamppb.New(end),
	})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.FromSeed([]byte(made.GetSeed()))
	if err != nil {
		t.Fatalf("the seed is none: %v", err)
	}
	of := made.GetEventCredential()
	if public, err := pair.PublicKey(); err != nil || public != of.GetPublicKey() || !strings.HasPrefix(public, "U") {
		t.Errorf("the seed's public key is %s, %v", public, err)
	}
	if of.GetName() != "warehouse" || of.GetSubject() != "evt."+tm.org+".>" || of.GetStream() != "EVENTS" || of.GetConsumer() == "" ||
		of.GetCreatedBy() != tm.ids["admin"] || !of.GetExpiresAt().AsTime().Equal(end) {
		t.Errorf("made %v", of)
	}
	if all := tm.listed("ada"); len(all) != 1 || !proto.Equal(all[0], of) {
		t.Errorf("listed %v, want %v", all, of)
	}
	events, err := tm.store.Load(t.Context(), subjects.Of(tm.org, subjects.EventCredential, of.GetId()), 0)
	if err != nil || len(events) != 1 || events[0].Payload.(*identityv1.EventCredentialCreated).GetAfterSequence() != 7 ||
		strings.Contains(events[0].Payload.(*identityv1.EventCredentialCreated).String(), made.GetSeed()) {
		t.Errorf("the log has %v, %v", events, err)
	}

	if _, err := tm.eventCredentials.RevokeEventCredential(tm.as(tm.tokens["ada"], tm.org), &identityv1.RevokeEventCredentialRequest{Id: of.GetId()}); err != nil {
		t.Fatal(err)
	}
	if all := tm.listed("ada"); len(all) != 0 {
		t.Errorf("revoked, and listed %v", all)
	}
	for _, id := range []string{of.GetId(), "none", "*", "a.b", ""} {
		if _, err := tm.eventCredentials.RevokeEventCredential(tm.as(tm.tokens["ada"], tm.org), &identityv1.RevokeEventCredentialRequest{Id: id}); status(err) != 404 {
			t.Errorf("revoke %q: %v", id, err)
		}
	}
}

func TestEventCredentialsAreForAdminsAndEndWithTheirMaker(t *testing.T) {
	t.Parallel()
	tm := begun(t)
	for _, by := range []string{"member", "viewer"} {
		if _, err := tm.eventCredential(by); status(err) != 403 {
			t.Errorf("a %s makes one: %v", by, err)
		}
	}
	// An app reads events for a person; it may not keep reading when its leave ends.
	p, _ := tm.who(tm.tokens["admin"], tm.org)
	app := proto.Clone(p).(*identityv1.Principal)
	app.Kind, app.AppId, app.Scopes = identityv1.CredentialKind_CREDENTIAL_KIND_ACCESS_TOKEN, "app", []string{access.EventsRead}
	in := &identityv1.CreateEventCredentialRequest{Name: "w"}
	if _, err := tm.eventCredentials.CreateEventCredential(tm.by(app), in); status(err) != 403 {
		t.Errorf("an app makes one: %v", err)
	}
	app.AppId = "slipway-cli"
	if _, err := tm.eventCredentials.CreateEventCredential(tm.by(app), in); err != nil {
		t.Errorf("the command line makes none: %v", err)
	}
	made, err := tm.eventCredential("admin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tm.eventCredentials.RevokeEventCredential(tm.as(tm.tokens["eve"], ""), &identityv1.RevokeEventCredentialRequest{Id: made.GetEventCredential().GetId()}); status(err) != 404 {
		t.Errorf("a stranger revokes it: %v", err)
	}
	kept, err := tm.eventCredential("ada")
	if err != nil {
		t.Fatal(err)
	}
	if err := tm.remove("ada", "admin"); err != nil {
		t.Fatal(err)
	}
	if all := tm.listed("ada"); len(all) != 1 || all[0].GetId() != kept.GetEventCredential().GetId() {
		t.Errorf("after the admin left there are %v", all)
	}
	for range 9 {
		if _, err := tm.eventCredential("ada"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tm.eventCredential("ada"); status(err) != 429 {
		t.Errorf("an eleventh: %v", err)
	}
}
