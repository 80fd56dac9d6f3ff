// Package access is the platform's words for who may do what: scopes, which a
// credential carries, and roles, which an operator has in an organization. What a
// caller may is what both allow.
package access

import "slices"

// Scopes.
const (
	// DeployManage is for all of the deploy dialect; it includes DeployRead.
	DeployManage = "deploy:manage"
	DeployRead   = "deploy:read"
	// AppsWrite is for what the app dialect changes; it includes DeployRead.
	AppsWrite   = "apps:write"
	BillingRead = "billing:read"
	EventsRead  = "events:read"
	// Admin is for those who run the platform, whatever their role in an organization.
	Admin = "admin"
)

// Scopes are all that there are.
func Scopes() []string {
	return []string{DeployManage, DeployRead, AppsWrite, BillingRead, EventsRead, Admin}
}

// Known reports whether there is such a scope.
func Known(scope string) bool { return slices.Contains(Scopes(), scope) }

// Roles in an organization, each of which may all that the ones after it may.
const (
	// RoleOwner may all; an organization has at least one.
	RoleOwner = "owner"
	// RoleAdmin manages members, but not owners, and API keys.
	RoleAdmin = "admin"
	// RoleMember deploys.
	RoleMember = "member"
	// RoleViewer reads.
	RoleViewer = "viewer"
)

// Roles are all that there are, those that may most first.
func Roles() []string { return []string{RoleOwner, RoleAdmin, RoleMember, RoleViewer} }

// ValidRole reports whether there is such a role.
func ValidRole(role string) bool { return slices.Contains(Roles(), role) }

// AtLeast reports whether role may all that least may. What is no role may nothing.
func AtLeast(role, least string) bool {
	have, need := slices.Index(Roles(), role), slices.Index(Roles(), least)
	return have >= 0 && need >= 0 && have <= need
}

// allows reports whether a role lets its holder use a scope in the organization.
func allows(role, scope string) bool {
	switch scope {
	case DeployRead, BillingRead, EventsRead:
		return AtLeast(role, RoleViewer)
	case DeployManage, AppsWrite:
		return AtLeast(role, RoleMember)
	}
	return false
}

// implied is what a scope includes beside itself.
func implied(scope string) []string {
	if scope == DeployManage || scope == AppsWrite {
		return []string{DeployRead}
	}
	return nil
}

// Effective are those of the granted scopes that an operator with that role may use;
// of one that the role does not allow, what it includes. Admin is left only to who
// runs the platform.
func Effective(granted []string, role string, platformAdmin bool) []string {
	var out []string
	add := func(scope string) {
		if !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	for _, scope := range granted {
		switch {
		case scope == Admin && platformAdmin, allows(role, scope):
			add(scope)
		default:
			for _, part := range implied(scope) {
				if allows(role, part) {
					add(part)
				}
			}
		}
	}
	return out
}

// Holds reports whether scopes include the one that is needed.
func Holds(scopes []string, need string) bool {
	return slices.ContainsFunc(scopes, func(have string) bool {
		return have == need || slices.Contains(implied(have), need)
	})
}
