package request_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/distribution/reference"

	"github.com/slipway-paas/slipway/services/scheduler/request"
)

// FuzzEveryRequestIsJudged: whatever is asked for is fine or refused by field, in
// words that can be sent; what is fine can be used for what it is for.
func FuzzEveryRequestIsJudged(f *testing.F) {
	f.Add("my-app", "ghcr.io/acme/app:1", "starter", int64(3000), "www.example.com", "KEY", "value", true)
	f.Add("-a", "ghcr.io/acme/app@sha256:"+strings.Repeat("0", 64), "", int64(-1), "xn--nxasmq6b.example", "PORT", "\x00", false)
	f.Add("api", "ghcr.io/../../etc", "\xff", int64(1)<<62, "a..b", "1A", "\xff", true)
	f.Add(strings.Repeat("a", 33), "docker.io/", "a", int64(65536), "apps.test", strings.Repeat("N", 300), "", true)
	f.Add("a\n", "ghcr.io/A/b", "a", int64(0), "1.2.3.4", "é", "b", true)
	f.Add("ａ", "ghcr.io/a/b:"+strings.Repeat("t", 129), "a", int64(1), "EXAMPLE.com.", "", "", true)
	rules := request.Rules{Registries: []string{"docker.io/", "ghcr.io/"}, BaseDomain: "apps.test", Reserved: []string{"api", "www"}}
	f.Fuzz(func(t *testing.T, subdomain, image, tier string, port int64, domain, name, value string, allowed bool) {
		q := request.Request{Subdomain: subdomain, Image: image, Tier: tier, Port: &port, CustomDomain: domain, Env: map[string]string{name: value}}
		faults := rules.Check(q, allowed)
		at := map[string]bool{}
		for _, fault := range faults {
			at[strings.SplitN(fault.Field, ".", 2)[0]] = true
			if fault.Field == "" || fault.Message == "" || len(fault.Field)+len(fault.Message) > 2<<10 {
				t.Fatalf("a fault nobody can read: %+v", fault)
			}
			if utf8.ValidString(image) && utf8.ValidString(name) && !utf8.ValidString(fault.Field+fault.Message) {
				t.Fatalf("a fault that JSON cannot carry: %+q", fault)
			}
		}
		if !at["subdomain"] && (len(subdomain) > 32 || strings.Trim(subdomain, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || rules.Reserved[0] == subdomain) {
			t.Fatalf("the subdomain %q was taken", subdomain)
		}
		if !at["image"] {
			named, err := reference.ParseNormalizedNamed(image)
			if err != nil || !strings.HasPrefix(named.String(), "docker.io/") && !strings.HasPrefix(named.String(), "ghcr.io/") {
				t.Fatalf("the image %q was taken, which is %v, %v", image, named, err)
			}
		}
		if domain != "" && !at["custom_domain"] && !allowed {
			t.Fatalf("the custom domain %q was taken", domain)
		}
		if kept, wrong := rules.Domain(domain); !at["custom_domain"] && len(wrong) == 0 && (strings.HasSuffix(kept, ".apps.test") || kept != strings.ToLower(kept)) {
			t.Fatalf("the custom domain %q was taken as %q", domain, kept)
		}
		if !at["env_vars"] && (name == "PORT" || strings.ContainsAny(name+value, "\x00") || strings.Contains(name, "=")) {
			t.Fatalf("the variable %q=%q was taken", name, value)
		}
	})
}
