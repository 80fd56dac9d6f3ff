package identity_test

import (
	"strings"
	"testing"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity"
)

func (w *world) org(token, name string) string {
	w.t.Helper()
	res, err := w.orgs.CreateOrg(w.as(token, ""), &identityv1.CreateOrgRequest{Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return res.GetOrg().GetId()
}

// joins brings somebody into an organization.
func (w *world) joins(owner, org, name, token, role string) {
	w.t.Helper()
	if _, err := w.orgs.InviteMember(w.as(owner, ""), &identityv1.InviteMemberRequest{OrgId: org, Email: name + "@example.com", Role: role}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.orgs.JoinOrg(w.as(token, ""), &identityv1.JoinOrgRequest{OrgId: org}); err != nil {
		w.t.Fatal(err)
	}
}

// keyGone waits until the data key of an aggregate is destroyed.
func (w *world) keyGone(a subjects.Aggregate) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, _, err := w.sealer.Seal(w.t.Context(), a, map[string]string{"x": "y"})
		if err != nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the data key of %s is still there", a)
		}
	}
}

func TestADeletedAccountLeavesNothingToBeRead(t *testing.T) {
	t.Parallel()
	w := begin(t, identity.Config{})
	w.register("root")
	user, token := w.register("ada")
	del := func(token, password string) error {
		_, err := w.accounts.DeleteAccount(w.as(token, ""), &identityv1.DeleteAccountRequest{Password: password})
		return err
	}
	if err := del(token, "wrong password"); status(err) != 422 {
		t.Errorf("with a wrong password: %v", err)
	}
	alone := w.org(token, "Just me")
	if err := del(token, goodPassword); err != nil {
		t.Fatal(err)
	}
	if _, code := w.who(token, ""); code != 401 {
		t.Errorf("the session of a deleted account: %d", code)
	}
	if _, code, _ := w.login("ada", goodPassword, ""); code != 401 {
		t.Errorf("a login after: %d", code)
	}
	w.keyGone(subjects.Of(subjects.Platform, subjects.Operator, user.GetId()))
	w.keyGone(subjects.Of(alone, subjects.Org, alone))
	// The address is free, and another's.
	again, fresh := w.register("ada")
	if again.GetId() == user.GetId() || again.GetRole() != "user" {
		t.Errorf("registered again as %v", again)
	}
	res, err := w.orgs.ListOrgs(w.as(fresh, ""), &identityv1.ListOrgsRequest{})
	if err != nil || len(res.GetOrgs()) != 1 || len(res.GetInvitations()) != 0 {
		t.Errorf("whose organizations are %v, %v", res, err)
	}
	// Another process on the same log knows the same.
	other := w.restart()
	for deadline := time.Now().Add(10 * time.Second); other.service.Ready() != nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if _, code := other.who(token, ""); code != 401 {
		t.Errorf("after a restart: %d", code)
	}
	if _, code := other.who(fresh, ""); code != 200 {
		t.Errorf("the new account after a restart: %d", code)
	}
}

func TestTheOnlyOwnerOfOthersOrganizationStays(t *testing.T) {
	t.Parallel()
	w := begin(t, identity.Config{})
	_, ada := w.register("ada")
	_, bob := w.register("bob")
	org := w.org(ada, "Acme")
	w.joins(ada, org, "bob", bob, "member")
	_, err := w.accounts.DeleteAccount(w.as(ada, ""), &identityv1.DeleteAccountRequest{Password: goodPassword})
	if p := problem.From(err); p.Code != problem.CodeInvalidState || !strings.Contains(p.Message, "Acme") {
		t.Errorf("the only owner: %v", err)
	}
	// A member may go, and is a member no more.
	if _, err := w.accounts.DeleteAccount(w.as(bob, ""), &identityv1.DeleteAccountRequest{Password: goodPassword}); err != nil {
		t.Fatal(err)
	}
	members, err := w.orgs.ListMembers(w.as(ada, ""), &identityv1.ListMembersRequest{OrgId: org})
	if err != nil || len(members.GetMembers()) != 1 {
		t.Errorf("members: %v, %v", members, err)
	}
}

func TestADeletedOrganizationEndsWhateverActsForIt(t *testing.T) {
	t.Parallel()
	w := begin(t, identity.Config{})
	_, ada := w.register("ada")
	_, bob := w.register("bob")
	org := w.org(ada, "Acme")
	w.joins(ada, org, "bob", bob, "admin")
	key, err := w.keys.CreateApiKey(w.as(ada, org), &identityv1.CreateApiKeyRequest{Name: "k", Scopes: []string{"deploy:read"}})
	if err != nil {
		t.Fatal(err)
	}
	del := func(token, confirm string) error {
		_, err := w.orgs.DeleteOrg(w.as(token, ""), &identityv1.DeleteOrgRequest{OrgId: org, Confirm: confirm})
		return err
	}
	if err := del(bob, "Acme"); status(err) != 403 {
		t.Errorf("by an admin: %v", err)
	}
	if err := del(ada, "acme"); status(err) != 422 {
		t.Errorf("not confirmed: %v", err)
	}
	if err := del(ada, "Acme"); err != nil {
		t.Fatal(err)
	}
	if _, code := w.who(key.GetKey(), ""); code != 401 {
		t.Errorf("its key: %d", code)
	}
	if _, code := w.who(ada, org); code != 403 {
		t.Errorf("its owner, for it: %d", code)
	}
	if err := del(ada, "Acme"); status(err) != 404 {
		t.Errorf("again: %v", err)
	}
	personal := w.personal(ada)
	if _, err := w.orgs.DeleteOrg(w.as(ada, ""), &identityv1.DeleteOrgRequest{OrgId: personal, Confirm: "personal"}); problem.From(err).Code != problem.CodeInvalidState {
		t.Errorf("a personal organization: %v", err)
	}
	w.keyGone(subjects.Of(org, subjects.Org, org))
}

func (w *world) personal(token string) string {
	w.t.Helper()
	p, _ := w.who(token, "")
	return p.GetOrgId()
}
