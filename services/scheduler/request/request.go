// Package request reads what an operator asks for when creating a deployment, and
// says all that is wrong with it at once.
package request

import (
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/distribution/reference"

	"github.com/slipway-paas/slipway/libs/domainname"
	"github.com/slipway-paas/slipway/libs/problem"
)

// Bounds of a request.
const (
	DefaultPort  = 3000
	MaxVariables = 50
	// MaxValueBytes bounds one variable's value.
	MaxValueBytes = 32 << 10
	maxNameBytes  = 256
	maxImageBytes = 512
)

// Rules are what the platform allows.
type Rules struct {
	// Registries are prefixes that an image reference must start with.
	Registries []string
	// BaseDomain is where subdomains live; a custom domain may not be below it.
	BaseDomain string
	// Reserved subdomains are the platform's own.
	Reserved []string
	// OwnHosts are those that the platform itself answers at.
	OwnHosts []string
}

// Request is what was asked for, as it came in.
type Request struct {
	Subdomain    string
	Image        string
	Tier         string
	Port         *int64
	CustomDomain string
	Env          map[string]string
}

var (
	subdomainPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
	variablePattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// Check returns every field at fault, in the order of the request's fields; none
// when it is fine. customDomainAllowed is the tier's word; unknown tiers are the
// caller's to report.
func (r Rules) Check(q Request, customDomainAllowed bool) []problem.Field {
	var faults []problem.Field
	add := func(field, format string, args ...any) {
		faults = append(faults, problem.Field{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	switch {
	case q.Subdomain == "":
		add("subdomain", "is required: 1 to 32 lowercase letters, digits and hyphens")
	case !subdomainPattern.MatchString(q.Subdomain):
		add("subdomain", "must be 1 to 32 lowercase letters, digits and hyphens, and begin and end with a letter or digit")
	case slices.Contains(r.Reserved, q.Subdomain):
		add("subdomain", "%q is reserved by the platform; choose another", q.Subdomain)
	}
	if fault := r.image(q.Image); fault != "" {
		add("image", "%s", fault)
	}
	if q.Tier == "" {
		add("tier", "is required: a slug from GET /api/deploy/tiers")
	}
	if q.Port != nil && (*q.Port < 1 || *q.Port > 65535) {
		add("port", "must be between 1 and 65535, not %d", *q.Port)
	}
	if q.CustomDomain != "" {
		_, wrong := r.Domain(q.CustomDomain)
		for _, fault := range wrong {
			add("custom_domain", "%s", fault)
		}
		if len(wrong) == 0 && !customDomainAllowed {
			add("custom_domain", "the tier does not allow a custom domain; choose one with custom_domain_allowed")
		}
	}
	return append(faults, environment(q.Env)...)
}

func (r Rules) image(image string) string {
	allowed := "must start with " + list(r.Registries)
	switch {
	case image == "":
		return "is required, and " + allowed
	case len(image) > maxImageBytes:
		return fmt.Sprintf("is longer than %d bytes", maxImageBytes)
	case !slices.ContainsFunc(r.Registries, func(p string) bool { return strings.HasPrefix(image, p) }):
		return "comes from a registry that is not supported: it " + allowed
	}
	if _, err := reference.ParseNormalizedNamed(image); err != nil {
		return fmt.Sprintf("is not an image reference (%v): write it like registry/name:tag", err)
	}
	return ""
}

func list(items []string) string {
	if len(items) < 2 {
		return strings.Join(items, "")
	}
	return strings.Join(items[:len(items)-1], ", ") + " or " + items[len(items)-1]
}

// Domain is a custom domain in the form that it is kept in, and all that is wrong with it.
func (r Rules) Domain(text string) (name string, faults []string) {
	return domainname.Rules{Base: r.BaseDomain, Own: r.OwnHosts}.Parse(text)
}

func environment(env map[string]string) []problem.Field {
	var faults []problem.Field
	add := func(field, format string, args ...any) {
		faults = append(faults, problem.Field{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if len(env) > MaxVariables {
		add("env_vars", "has %d variables; at most %d are allowed", len(env), MaxVariables)
	}
	names := make([]string, 0, len(env))
	for name := range env {
		names = append(names, name)
	}
	sort.Strings(names)
	// The list of faults is bounded as the variables are.
	for _, name := range names[:min(len(names), MaxVariables)] {
		value := env[name]
		field := "env_vars." + cut(told(name))
		switch {
		case !variablePattern.MatchString(name) || len(name) > maxNameBytes:
			add(field, "is not a variable name: letters, digits and underscores, not beginning with a digit")
		case name == "PORT":
			add(field, "is set by the platform; use the field port")
		case len(value) > MaxValueBytes:
			add(field, "has a value of %d bytes; at most %d are allowed", len(value), MaxValueBytes)
		case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
			add(field, "has a value that is not plain text: it must be UTF-8 without NUL")
		}
	}
	return faults
}

// told is as much of a variable's name as may be repeated: who writes NAME=value where
// a name belongs has put the value there.
func told(name string) string {
	end := strings.IndexAny(name, "=: \t\r\n")
	if end < 0 {
		return name
	}
	return name[:end] + "…"
}

func cut(name string) string {
	if len(name) > 64 {
		return strings.ToValidUTF8(name[:64], "") + "…"
	}
	return name
}
