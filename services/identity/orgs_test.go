package identity_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/services/identity"
)

// team is an organization of ada's, with a member of each other role, and eve outside.
type team struct {
	*world
	org    string
	tokens map[string]string
	ids    map[string]string
}

func begun(t *testing.T) *team {
	t.Helper()
	tm := &team{world: begin(t, identity.Config{SessionTTL: 30 * 24 * time.Hour}), tokens: map[string]string{}, ids: map[string]string{}}
	for _, name := range []string{"ada", "admin", "member", "viewer", "eve"} {
		user, token := tm.register(name)
		tm.tokens[name], tm.ids[name] = token, user.Id
	}
	created, err := tm.orgs.CreateOrg(tm.as(tm.tokens["ada"], ""), &identityv1.CreateOrgRequest{Name: "Acme"})
	if err != nil || created.GetOrg().GetRole() != "owner" || created.GetOrg().GetPersonal() {
		t.Fatal(created, err)
	}
	tm.org = created.GetOrg().GetId()
	for _, role := range []string{"admin", "member", "viewer"} {
		if _, err := tm.invite("ada", role, role); err != nil {
			t.Fatal(err)
		}
		if _, err := tm.join(role); err != nil {
			t.Fatal(err)
		}
	}
	return tm
}

func (tm *team) ctx(name string) context.Context { return tm.as(tm.tokens[name], "") }

func (tm *team) invite(by, whom, role string) (*identityv1.InviteMemberResponse, error) {
	return tm.orgs.InviteMember(tm.ctx(by), &identityv1.InviteMemberRequest{OrgId: tm.org, Email: whom + "@example.com", Role: role})
}

func (tm *team) join(name string) (*identityv1.JoinOrgResponse, error) {
	return tm.orgs.JoinOrg(tm.ctx(name), &identityv1.JoinOrgRequest{OrgId: tm.org})
}

func (tm *team) remove(by, whom string) error {
	_, err := tm.orgs.RemoveMember(tm.ctx(by), &identityv1.RemoveMemberRequest{OrgId: tm.org, MemberId: tm.ids[whom]})
	return err
}

func (tm *team) role(by, whom, role string) error {
	_, err := tm.orgs.SetMemberRole(tm.ctx(by), &identityv1.SetMemberRoleRequest{OrgId: tm.org, MemberId: tm.ids[whom], Role: role})
	return err
}

func (tm *team) key(by string, scopes ...string) (*identityv1.CreateApiKeyResponse, error) {
	return tm.keys.CreateApiKey(tm.as(tm.tokens[by], tm.org), &identityv1.CreateApiKeyRequest{Name: "ci", Scopes: scopes})
}

func TestEachRoleMayWhatItIsFor(t *testing.T) {
	t.Parallel()
	tm := begun(t)
	for name, want := range map[string][]string{
		"admin":  {access.DeployManage, access.DeployRead, access.AppsWrite, access.BillingRead, access.EventsRead},
		"member": {access.DeployManage, access.DeployRead, access.AppsWrite, access.BillingRead, access.EventsRead},
		"viewer": {access.DeployRead, access.BillingRead, access.EventsRead},
	} {
		if p, code := tm.who(tm.tokens[name], tm.org); code != 200 || p.GetRole() != name || p.GetOrgId() != tm.org || !slices.Equal(p.GetScopes(), want) {
			t.Errorf("%s is %v (%d)", name, p, code)
		}
	}
	if p, code := tm.who(tm.tokens["eve"], tm.org); code != 403 {
		t.Errorf("eve acts for it: %v (%d)", p, code)
	}
	for _, c := range []struct {
		what string
		call func(by string) error
		want map[string]int
	}{
		{"read", func(by string) error {
			_, err := tm.orgs.ListMembers(tm.ctx(by), &identityv1.ListMembersRequest{OrgId: tm.org})
			return err
		}, map[string]int{"ada": 200, "admin": 200, "member": 200, "viewer": 200, "eve": 404}},
		{"invite", func(by string) error {
			_, err := tm.invite(by, "guest-of-"+by, "viewer")
			return err
		}, map[string]int{"ada": 200, "admin": 200, "member": 403, "viewer": 403, "eve": 404}},
		{"invite an owner", func(by string) error {
			_, err := tm.invite(by, "boss-of-"+by, "owner")
			return err
		}, map[string]int{"ada": 200, "admin": 403, "member": 403, "viewer": 403, "eve": 404}},
		{"make owners of others", func(by string) error { return tm.role(by, "viewer", "owner") },
			map[string]int{"admin": 403, "member": 403, "viewer": 403, "eve": 404}},
		{"make an owner of oneself", func(by string) error { return tm.role(by, by, "owner") },
			map[string]int{"admin": 403, "member": 403, "viewer": 403, "eve": 404}},
		{"demote the owner", func(by string) error { return tm.role(by, "ada", "viewer") },
			map[string]int{"ada": 422, "admin": 403, "member": 403, "viewer": 403, "eve": 404}},
		{"remove the owner", func(by string) error { return tm.remove(by, "ada") },
			map[string]int{"ada": 422, "admin": 403, "member": 403, "viewer": 403, "eve": 404}},
		{"join uninvited", func(by string) error { _, err := tm.join(by); return err },
			map[string]int{"eve": 404}},
		{"list keys", func(by string) error {
			_, err := tm.keys.ListApiKeys(tm.as(tm.tokens[by], tm.org), &identityv1.ListApiKeysRequest{})
			return err
		}, map[string]int{"ada": 200, "admin": 200, "member": 403, "viewer": 403}},
	} {
		for by, want := range c.want {
			if err := c.call(by); status(err) != want {
				t.Errorf("%s, by %s: %v, want %d", c.what, by, err, want)
			}
		}
	}
	if err := tm.role("admin", "viewer", "member"); err != nil {
		t.Errorf("an admin makes a viewer a member: %v", err)
	}
	if err := tm.role("ada", "admin", "owner"); err != nil {
		t.Errorf("an owner makes another: %v", err)
	}
	if err := tm.remove("ada", "ada"); err != nil {
		t.Errorf("one of two owners leaves: %v", err)
	}
	if err := tm.remove("admin", "admin"); status(err) != 422 {
		t.Errorf("the last owner leaves: %v", err)
	}
}

func TestInvitationsTellNothingOfWhoHasAnAccount(t *testing.T) {
	t.Parallel()
	tm := begun(t)
	known, err := tm.invite("ada", "eve", "member")
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := tm.invite("ada", "nobody", "member")
	if err != nil {
		t.Fatal(err)
	}
	a, b := known.GetMember(), unknown.GetMember()
	if a.Status != "invited" || b.Status != "invited" || a.Name != b.Name || a.Id == tm.ids["eve"] {
		t.Errorf("got %v and %v", a, b)
	}
	for _, whom := range []string{"eve", "viewer"} {
		if _, err := tm.invite("ada", whom, "viewer"); status(err) != 422 {
			t.Errorf("%s again: %v", whom, err)
		}
	}
	// Who registers later finds the invitation.
	_, token := tm.register("nobody")
	list, err := tm.orgs.ListOrgs(tm.as(token, ""), &identityv1.ListOrgsRequest{})
	if err != nil || len(list.GetOrgs()) != 1 || !list.GetOrgs()[0].GetPersonal() || len(list.GetInvitations()) != 1 || list.GetInvitations()[0].GetId() != tm.org || list.GetInvitations()[0].GetRole() != "member" {
		t.Fatalf("got %v, %v", list, err)
	}
	// Before they take it they are none.
	if _, code := tm.who(token, tm.org); code != 403 {
		t.Errorf("invited only: %d", code)
	}
	if _, err := tm.orgs.RemoveMember(tm.ctx("ada"), &identityv1.RemoveMemberRequest{OrgId: tm.org, MemberId: b.Id}); err != nil {
		t.Fatal(err)
	}
	if _, err := tm.orgs.JoinOrg(tm.as(token, ""), &identityv1.JoinOrgRequest{OrgId: tm.org}); status(err) != 404 {
		t.Errorf("after the invitation was withdrawn: %v", err)
	}
	members, err := tm.orgs.ListMembers(tm.ctx("viewer"), &identityv1.ListMembersRequest{OrgId: tm.org})
	var shown []string
	for _, m := range members.GetMembers() {
		shown = append(shown, fmt.Sprint(m.Status, " ", m.Email, " ", m.Role))
	}
	want := "active ada@example.com owner, active admin@example.com admin, active member@example.com member, active viewer@example.com viewer, invited eve@example.com member"
	if strings.Join(shown, ", ") != want || err != nil {
		t.Errorf("members are %v, %v", shown, err)
	}
}

func TestWhoIsRemovedHasNoAccessFromThenOn(t *testing.T) {
	t.Parallel()
	tm := begun(t)
	key, err := tm.key("admin", access.DeployRead)
	if err != nil {
		t.Fatal(err)
	}
	if p, code := tm.who(key.GetKey(), ""); code != 200 || p.GetOrgId() != tm.org || p.GetOperatorId() != tm.ids["admin"] {
		t.Fatalf("the key speaks for %v (%d)", p, code)
	}
	if err := tm.remove("ada", "admin"); err != nil {
		t.Fatal(err)
	}
	if _, code := tm.who(key.GetKey(), ""); code != 401 {
		t.Errorf("the removed admin's key: %d", code)
	}
	if _, code := tm.who(tm.tokens["admin"], tm.org); code != 403 {
		t.Errorf("the removed admin's session there: %d", code)
	}
	if _, code := tm.who(tm.tokens["admin"], ""); code != 200 {
		t.Errorf("the removed admin's session at home: %d", code)
	}
	if _, err := tm.orgs.GetOrg(tm.ctx("admin"), &identityv1.GetOrgRequest{OrgId: tm.org}); status(err) != 404 {
		t.Errorf("the removed admin looks: %v", err)
	}
}

func TestAKeyIsShownOnceAndEnds(t *testing.T) {
	t.Parallel()
	tm := begun(t)
	for name, in := range map[string]*identityv1.CreateApiKeyRequest{
		"without a name":   {Scopes: []string{access.DeployRead}},
		"without scopes":   {Name: "k"},
		"an unknown scope": {Name: "k", Scopes: []string{"everything"}},
		"admin's scope":    {Name: "k", Scopes: []string{access.Admin}},
		"in the past":      {Name: "k", Scopes: []string{access.DeployRead}, ExpiresAt: timestamppb.New(tm.clock.Now())},
	} {
		if _, err := tm.keys.CreateApiKey(tm.as(tm.tokens["admin"], tm.org), in); status(err) != 422 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tm.key("member", access.DeployRead); status(err) != 403 {
		t.Errorf("a member makes one: %v", err)
	}
	ctx := tm.as(tm.tokens["admin"], tm.org)
	made, err := tm.keys.CreateApiKey(ctx, &identityv1.CreateApiKeyRequest{
		Name: "ci", Scopes: []string{access.DeployManage, access.EventsRead, access.DeployManage}, ExpiresAt: timestamppb.New(tm.clock.Now().Add(48 * time.Hour)),
	})
	if err != nil || len(made.GetKey()) != 47 || !strings.HasPrefix(made.GetKey(), made.GetApiKey().GetPrefix()) || len(made.GetApiKey().GetPrefix()) != 12 {
		t.Fatal(made, err)
	}
	list := func() *identityv1.ApiKey {
		t.Helper()
		res, err := tm.keys.ListApiKeys(ctx, &identityv1.ListApiKeysRequest{})
		if err != nil || len(res.GetApiKeys()) != 1 || strings.Contains(res.String(), made.GetKey()) {
			t.Fatal(res, err)
		}
		return res.GetApiKeys()[0]
	}
	if k := list(); k.LastUsedAt != nil || k.Name != "ci" || k.CreatedBy != tm.ids["admin"] || k.ExpiresAt == nil {
		t.Errorf("listed as %v", k)
	}
	p, code := tm.who(made.GetKey(), "")
	if code != 200 || p.Kind != identityv1.CredentialKind_CREDENTIAL_KIND_API_KEY || !slices.Equal(p.Scopes, []string{access.DeployManage, access.EventsRead}) || p.CredentialId != made.GetApiKey().GetId() {
		t.Errorf("it speaks for %v (%d)", p, code)
	}
	today := tm.clock.Now().Truncate(24 * time.Hour)
	eventually(t, "its use is noted, by the day", func() bool { return list().GetLastUsedAt().AsTime().Equal(today) })
	tm.clock.Pass(24 * time.Hour)
	tm.who(made.GetKey(), "")
	eventually(t, "and on the next day again", func() bool { return list().GetLastUsedAt().AsTime().Equal(today.Add(24 * time.Hour)) })

	// Another organization's admin has no say.
	if _, err := tm.keys.RevokeApiKey(tm.ctx("eve"), &identityv1.RevokeApiKeyRequest{Id: made.GetApiKey().GetId()}); status(err) != 404 {
		t.Errorf("eve revokes it: %v", err)
	}
	for _, id := range []string{"", "*", ">", "a.b", "none"} {
		if _, err := tm.keys.RevokeApiKey(ctx, &identityv1.RevokeApiKeyRequest{Id: id}); status(err) != 404 {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, code := tm.who(made.GetKey(), ""); code != 200 {
		t.Fatalf("the key: %d", code)
	}
	tm.clock.Pass(24 * time.Hour)
	if _, code := tm.who(made.GetKey(), ""); code != 401 {
		t.Errorf("at its end: %d", code)
	}
	other, err := tm.key("admin", access.DeployRead)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tm.keys.RevokeApiKey(tm.as(tm.tokens["ada"], tm.org), &identityv1.RevokeApiKeyRequest{Id: other.GetApiKey().GetId()}); err != nil {
		t.Fatal(err)
	}
	if _, code := tm.who(other.GetKey(), ""); code != 401 {
		t.Errorf("revoked: %d", code)
	}
}

func TestAKeyOfAViewerOfLaterReadsOnly(t *testing.T) {
	t.Parallel()
	tm := begun(t)
	key, err := tm.key("admin", access.DeployManage)
	if err != nil {
		t.Fatal(err)
	}
	if err := tm.role("ada", "admin", "viewer"); err != nil {
		t.Fatal(err)
	}
	if p, code := tm.who(key.GetKey(), ""); code != 200 || !slices.Equal(p.GetScopes(), []string{access.DeployRead}) {
		t.Errorf("it speaks for %v (%d)", p, code)
	}
}

func TestWhatIsBoundToOneOrganizationSpeaksForNoOther(t *testing.T) {
	t.Parallel()
	tm := begun(t)
	key, err := tm.key("ada", access.Admin)
	if err != nil {
		t.Fatal(err)
	}
	home, _ := tm.who(tm.tokens["ada"], "")
	if _, code := tm.who(key.GetKey(), home.GetOrgId()); code != 403 {
		t.Errorf("asked for another of its operator's: %d", code)
	}
	p, _ := tm.who(key.GetKey(), tm.org)
	if _, err := tm.orgs.GetOrg(tm.by(p), &identityv1.GetOrgRequest{OrgId: home.GetOrgId()}); status(err) != 404 {
		t.Errorf("it looks at another of its operator's: %v", err)
	}
	if list, err := tm.orgs.ListOrgs(tm.by(p), &identityv1.ListOrgsRequest{}); err != nil || len(list.GetOrgs()) != 1 || list.GetOrgs()[0].GetId() != tm.org {
		t.Errorf("it lists %v, %v", list, err)
	}
}
