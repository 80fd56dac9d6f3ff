package org_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/identity/org"
)

var email = sha256.Sum256([]byte("bob@example.com"))

func story(t *testing.T) *gwt.Story[org.State, org.Command] { return gwt.New(t, org.Decider()) }

func created() *identityv1.OrgCreated {
	return &identityv1.OrgCreated{OrgId: "acme", Name: "Acme", OwnerId: "ada"}
}

func invited(role string) *identityv1.MemberInvited {
	return &identityv1.MemberInvited{InvitationId: "i1", EmailHash: email[:], Email: []byte("sealed"), Role: role, InvitedBy: "ada"}
}

func joined(id, role string) *identityv1.MemberJoined {
	return &identityv1.MemberJoined{OperatorId: id, InvitationId: "i1", Role: role}
}

func TestAnOrganizationIsMadeOnceWithItsOwner(t *testing.T) {
	t.Parallel()
	make1 := org.Create{ID: "acme", Name: "Acme", Owner: "ada"}
	story(t).When(make1).Then(created()).When(make1).ThenErrorIs(org.ErrExists)
	story(t).When(org.Create{ID: "acme", Name: "Acme"}).ThenErrorIs(org.ErrMalformed)
	story(t).When(org.Remove{By: "ada", ID: "ada"}).ThenErrorIs(org.ErrUnknown)
	story(t).Given(created()).When(nil).ThenErrorIs(org.ErrMalformed)
}

func TestAnInvitationIsTakenOnceByWhoHasTheAddress(t *testing.T) {
	t.Parallel()
	invite := org.Invite{By: "ada", ID: "i1", EmailHash: email, Email: []byte("sealed"), Role: "member"}
	other := sha256.Sum256([]byte("eve@example.com"))
	story(t).Given(created()).
		When(invite).Then(invited("member")).
		When(invite).ThenErrorIs(org.ErrMember).
		When(org.Join{Operator: "eve", EmailHash: other}).ThenErrorIs(org.ErrUnknown).
		When(org.Join{Operator: "eve"}).ThenErrorIs(org.ErrUnknown).
		When(org.Join{Operator: "bob", EmailHash: email}).Then(joined("bob", "member")).
		When(org.Join{Operator: "bob", EmailHash: email}).ThenNothing().
		When(org.Join{Operator: "bob2", EmailHash: email}).ThenErrorIs(org.ErrUnknown)
	story(t).Given(created()).When(org.Invite{By: "ada", ID: "i1", EmailHash: email, Email: []byte("x"), Role: "king"}).ThenErrorIs(org.ErrMalformed)
}

func TestAnOrganizationIsNeverWithoutOwner(t *testing.T) {
	t.Parallel()
	story(t).Given(created(), invited("owner"), joined("bob", "owner")).
		When(org.Remove{By: "bob", ID: "ada"}).Then(&identityv1.MemberRemoved{OperatorId: "ada"}).
		When(org.Remove{By: "bob", ID: "bob"}).ThenErrorIs(org.ErrLastOwner).
		When(org.SetRole{By: "bob", Operator: "bob", Role: "admin"}).ThenErrorIs(org.ErrLastOwner).
		When(org.SetRole{By: "ada", Operator: "bob", Role: "admin"}).ThenErrorIs(org.ErrUnknown)
}

func TestAnAdminManagesAllButOwners(t *testing.T) {
	t.Parallel()
	story(t).Given(created(), invited("admin"), joined("bob", "admin"), joined("cy", "viewer")).
		When(org.SetRole{By: "bob", Operator: "cy", Role: "owner"}).ThenErrorIs(org.ErrForbidden).
		When(org.SetRole{By: "bob", Operator: "ada", Role: "viewer"}).ThenErrorIs(org.ErrForbidden).
		When(org.Remove{By: "bob", ID: "ada"}).ThenErrorIs(org.ErrForbidden).
		When(org.Remove{By: "bob", ID: "nobody"}).ThenErrorIs(org.ErrUnknown).
		When(org.SetRole{By: "bob", Operator: "cy", Role: "viewer"}).ThenNothing().
		When(org.SetRole{By: "bob", Operator: "cy", Role: "member"}).Then(&identityv1.MemberRoleChanged{OperatorId: "cy", Role: "member"}).
		When(org.Remove{By: "cy", ID: "bob"}).ThenErrorIs(org.ErrForbidden).
		When(org.Remove{By: "cy", ID: "cy"}).Then(&identityv1.MemberRemoved{OperatorId: "cy"})
	story(t).Given(created(), joined("bob", "admin"), invited("owner")).
		When(org.Remove{By: "bob", ID: "i1"}).ThenErrorIs(org.ErrForbidden).
		When(org.Remove{By: "ada", ID: "i1"}).Then(&identityv1.InvitationWithdrawn{InvitationId: "i1"})
}

func TestAdminsRenameAnOrganization(t *testing.T) {
	t.Parallel()
	renamed := &identityv1.OrgRenamed{Name: "Acme Inc"}
	story(t).Given(created(), joined("bob", "admin"), joined("cy", "member")).
		When(org.Rename{By: "cy", Name: "Mine"}).ThenErrorIs(org.ErrForbidden).
		When(org.Rename{By: "eve", Name: "Mine"}).ThenErrorIs(org.ErrUnknown).
		When(org.Rename{By: "bob"}).ThenErrorIs(org.ErrMalformed).
		When(org.Rename{By: "bob", Name: "Acme Inc"}).Then(renamed).
		When(org.Rename{By: "ada", Name: "Acme Inc"}).ThenNothing()
}

func TestAnOwnerDeletesAnOrganizationForGood(t *testing.T) {
	t.Parallel()
	deleted := &identityv1.OrgDeleted{DeletedBy: "ada"}
	gone := story(t).Given(created(), joined("bob", "admin")).
		When(org.Delete{By: "bob"}).ThenErrorIs(org.ErrForbidden).
		When(org.Delete{By: "eve"}).ThenErrorIs(org.ErrUnknown).
		When(org.Delete{By: "ada"}).Then(deleted).
		When(org.Delete{By: "ada"}).ThenErrorIs(org.ErrUnknown).
		When(org.Join{Operator: "bob", EmailHash: email}).ThenErrorIs(org.ErrUnknown).
		When(org.Create{ID: "acme", Name: "Acme", Owner: "eve"}).ThenErrorIs(org.ErrExists)
	if diff := cmp.Diff(org.State{ID: "acme", Deleted: true}, gone.State()); diff != "" {
		t.Error(diff)
	}
	personal := created()
	personal.Personal = true
	story(t).Given(personal).When(org.Delete{By: "ada"}).ThenErrorIs(org.ErrPersonal).
		When(org.Delete{By: "ada", WithAccount: true}).Then(deleted)
}

// A new event of the schema needs a fold and a line in this test.
func TestEveryEventOfTheSchemaHasAFold(t *testing.T) {
	t.Parallel()
	given := func(events ...proto.Message) org.State { return story(t).Given(events...).State() }
	samples := map[string]struct {
		before org.State
		event  proto.Message
	}{
		"OrgCreated":          {org.State{}, created()},
		"OrgDeleted":          {given(created()), &identityv1.OrgDeleted{DeletedBy: "ada"}},
		"OrgRenamed":          {given(created()), &identityv1.OrgRenamed{Name: "Acme Inc"}},
		"MemberInvited":       {given(created()), invited("viewer")},
		"InvitationWithdrawn": {given(created(), invited("viewer")), &identityv1.InvitationWithdrawn{InvitationId: "i1"}},
		"MemberJoined":        {given(created(), invited("viewer")), joined("bob", "viewer")},
		"MemberRoleChanged":   {given(created(), joined("bob", "viewer")), &identityv1.MemberRoleChanged{OperatorId: "bob", Role: "member"}},
		"MemberRemoved":       {given(created(), joined("bob", "viewer")), &identityv1.MemberRemoved{OperatorId: "bob"}},
	}
	messages := identityv1.File_slipway_identity_v1_org_events_proto.Messages()
	for i := range messages.Len() {
		name := string(messages.Get(i).Name())
		sample, ok := samples[name]
		event := eventstore.Recorded{Event: eventstore.Event{Payload: sample.event, Time: gwt.Start().Add(time.Hour)}}
		if !ok || cmp.Equal(org.Evolve(sample.before, event), sample.before) {
			t.Errorf("%s has no fold", name)
		}
	}
}
