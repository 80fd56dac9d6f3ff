package request_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/services/scheduler/request"
)

func rules() request.Rules {
	return request.Rules{Registries: []string{"docker.io/library/", "ghcr.io/"}, BaseDomain: "apps.localhost", Reserved: []string{"www", "api"}}
}

func fine() request.Request {
	return request.Request{Subdomain: "my-app", Image: "docker.io/library/nginx:1", Tier: "buddo-starter"}
}

func TestAFineRequestHasNoFaults(t *testing.T) {
	t.Parallel()
	q := fine()
	port := int64(65535)
	q.Port, q.CustomDomain, q.Env = &port, "www.example.com", map[string]string{"NODE_ENV": "production", "_x1": ""}
	if got := rules().Check(q, true); len(got) != 0 {
		t.Fatalf("faults: %v", got)
	}
}

func TestEachFaultNamesItsFieldAndWhatToDo(t *testing.T) {
	t.Parallel()
	port := func(p int64) *int64 { return &p }
	many := map[string]string{}
	for i := range 51 {
		many[fmt.Sprintf("V%d", i)] = "x"
	}
	for _, tc := range []struct {
		name   string
		change func(*request.Request)
		field  string
		says   string
	}{
		{"no subdomain", func(q *request.Request) { q.Subdomain = "" }, "subdomain", "required"},
		{"upper case", func(q *request.Request) { q.Subdomain = "My" }, "subdomain", "lowercase"},
		{"a hyphen first", func(q *request.Request) { q.Subdomain = "-a" }, "subdomain", "begin and end"},
		{"33 characters", func(q *request.Request) { q.Subdomain = strings.Repeat("a", 33) }, "subdomain", "1 to 32"},
		{"a dot", func(q *request.Request) { q.Subdomain = "a.b" }, "subdomain", "1 to 32"},
		{"a newline", func(q *request.Request) { q.Subdomain = "ab\n" }, "subdomain", "1 to 32"},
		{"reserved", func(q *request.Request) { q.Subdomain = "www" }, "subdomain", "reserved"},
		{"no image", func(q *request.Request) { q.Image = "" }, "image", "required"},
		{"another registry", func(q *request.Request) { q.Image = "quay.io/a/b" }, "image", "docker.io/library/ or ghcr.io/"},
		{"not a reference", func(q *request.Request) { q.Image = "ghcr.io/A B" }, "image", "not an image reference"},
		{"no tier", func(q *request.Request) { q.Tier = "" }, "tier", "required"},
		{"port 0", func(q *request.Request) { q.Port = port(0) }, "port", "65535"},
		{"port 65536", func(q *request.Request) { q.Port = port(65536) }, "port", "65535"},
		{"no such domain", func(q *request.Request) { q.CustomDomain = "not a domain" }, "custom_domain", "name alone"},
		{"an address", func(q *request.Request) { q.CustomDomain = "192.0.2.7" }, "custom_domain", "not an address"},
		{"a bare word", func(q *request.Request) { q.CustomDomain = "localhost" }, "custom_domain", "full domain name"},
		{"below ours", func(q *request.Request) { q.CustomDomain = "x.apps.localhost" }, "custom_domain", "below apps.localhost"},
		{"too many variables", func(q *request.Request) { q.Env = many }, "env_vars", "51"},
		{"a bad name", func(q *request.Request) { q.Env = map[string]string{"1X": ""} }, "env_vars.1X", "variable name"},
		{"a value in a name", func(q *request.Request) { q.Env = map[string]string{"PASSWORD=hunter2": ""} }, "env_vars.PASSWORD…", "variable name"},
		{"PORT", func(q *request.Request) { q.Env = map[string]string{"PORT": "1"} }, "env_vars.PORT", "field port"},
		{"a long value", func(q *request.Request) { q.Env = map[string]string{"X": strings.Repeat("x", 32<<10+1)} }, "env_vars.X", "32769"},
		{"NUL", func(q *request.Request) { q.Env = map[string]string{"X": "a\x00"} }, "env_vars.X", "plain text"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			q := fine()
			tc.change(&q)
			got := rules().Check(q, true)
			if len(got) != 1 || got[0].Field != tc.field || !strings.Contains(got[0].Message, tc.says) {
				t.Fatalf("faults %v, want one on %s that says %q", got, tc.field, tc.says)
			}
		})
	}
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	port := int64(-1)
	got := rules().Check(request.Request{Subdomain: "A", Image: "x", Port: &port, CustomDomain: "ok.example.com", Env: map[string]string{"9": ""}}, false)
	var fields []string
	for _, f := range got {
		fields = append(fields, f.Field)
	}
	if s := strings.Join(fields, " "); s != "subdomain image tier port custom_domain env_vars.9" {
		t.Fatalf("fields at fault: %s", s)
	}
}
