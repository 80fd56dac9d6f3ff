// Package scope compares lists of scopes, as apps ask for them and people allow them.
package scope

import (
	"slices"

	"github.com/slipway-paas/slipway/libs/access"
)

// Within reports whether allowed includes all that is asked.
func Within(asked, allowed []string) bool {
	return !slices.ContainsFunc(asked, func(s string) bool { return !access.Holds(allowed, s) })
}

// Sorted is the scopes, each once, in the platform's order; unknown ones are left out.
func Sorted(scopes []string) []string {
	return slices.DeleteFunc(access.Scopes(), func(s string) bool { return !slices.Contains(scopes, s) })
}
