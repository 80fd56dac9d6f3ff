package access_test

import (
	"slices"
	"testing"

	"github.com/slipway-paas/slipway/libs/access"
)

func TestARoleBoundsWhatACredentialMay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		granted []string
		role    string
		admin   bool
		want    []string
	}{
		"an owner uses what it was given":          {[]string{access.DeployManage, access.BillingRead}, access.RoleOwner, false, []string{access.DeployManage, access.BillingRead}},
		"a member deploys":                         {[]string{access.DeployManage}, access.RoleMember, false, []string{access.DeployManage}},
		"a viewer reads only":                      {[]string{access.DeployManage, access.AppsWrite, access.EventsRead}, access.RoleViewer, false, []string{access.DeployRead, access.EventsRead}},
		"an org's owner does not run the platform": {[]string{access.Admin}, access.RoleOwner, false, nil},
		"who runs the platform does":               {[]string{access.Admin}, access.RoleViewer, true, []string{access.Admin}},
		"and only with a credential that says so":  {[]string{access.DeployRead}, access.RoleOwner, true, []string{access.DeployRead}},
		"who is no member may nothing":             {access.Scopes(), "", false, nil},
		"nor who has a role that there is not":     {access.Scopes(), "root", false, nil},
		"scopes that there are not give nothing":   {[]string{"everything", ""}, access.RoleOwner, true, nil},
		"what is there twice counts once":          {[]string{access.DeployRead, access.DeployManage}, access.RoleViewer, false, []string{access.DeployRead}},
	} {
		if got := access.Effective(c.granted, c.role, c.admin); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestRolesAreInOrder(t *testing.T) {
	t.Parallel()
	for i, higher := range access.Roles() {
		for j, lower := range access.Roles() {
			if access.AtLeast(higher, lower) != (i <= j) {
				t.Errorf("%s at least %s: %v", higher, lower, i > j)
			}
		}
	}
	if access.AtLeast("", access.RoleViewer) || access.AtLeast(access.RoleOwner, "") || access.ValidRole("") {
		t.Error("no role counts as one")
	}
}

func TestManagingIncludesReading(t *testing.T) {
	t.Parallel()
	if !access.Holds([]string{access.DeployManage}, access.DeployRead) || access.Holds([]string{access.DeployRead}, access.DeployManage) || access.Holds(nil, access.DeployRead) {
		t.Error("deploy:manage must include deploy:read, and not the other way around")
	}
}
