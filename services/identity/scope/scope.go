// Package scope names what tokens can be good for.
package scope

import "slices"

// The scopes that apps may ask for. DeployManage includes what DeployRead allows.
const (
	DeployManage = "deploy:manage"
	DeployRead   = "deploy:read"
	AppsWrite    = "apps:write"
	BillingRead  = "billing:read"
	EventsRead   = "events:read"
	// Admin runs the platform; only who has it can pass it on.
	Admin = "admin"
)

// All are the scopes in the order in which people are shown them.
func All() []string {
	return []string{DeployManage, DeployRead, AppsWrite, BillingRead, EventsRead, Admin}
}

// Known reports whether there is such a scope.
func Known(name string) bool { return slices.Contains(All(), name) }

// Within reports whether asked are all among allowed.
func Within(asked, allowed []string) bool {
	return !slices.ContainsFunc(asked, func(s string) bool { return !slices.Contains(allowed, s) })
}

// Sorted is the scopes, each once, in the order of All; unknown ones are left out.
func Sorted(scopes []string) []string {
	return slices.DeleteFunc(All(), func(s string) bool { return !slices.Contains(scopes, s) })
}
