package scenarios

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/e2e/client"
)

func TestWhatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	s := platform(t)
	c := s.Client()
	sub := name(t)
	good := fmt.Sprintf(`{"subdomain":%q,"image":"docker.io/library/nginx","tier":"buddo-starter"`, sub)
	for what, request := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"not JSON":           {`{"subdomain":`, http.StatusBadRequest, "malformed_request"},
		"nothing":            {``, http.StatusBadRequest, "malformed_request"},
		"a list":             {`[]`, http.StatusBadRequest, "malformed_request"},
		"two values":         {good + `} {}`, http.StatusBadRequest, "malformed_request"},
		"a wrong type":       {`{"subdomain":5}`, http.StatusBadRequest, "malformed_request"},
		"an unknown field":   {good + `,"replicas":2}`, http.StatusBadRequest, "malformed_request"},
		"not UTF-8":          {"{\"subdomain\":\"\xff\xfe\"}", http.StatusBadRequest, "malformed_request"},
		"more than a MiB":    {good + `,"env_vars":{"A":"` + strings.Repeat("x", 1<<20) + `"}}`, http.StatusRequestEntityTooLarge, "body_too_large"},
		"a MiB of nothing":   {strings.Repeat(" ", 1<<20+1), http.StatusRequestEntityTooLarge, "body_too_large"},
		"nested without end": {strings.Repeat("[", 200_000), http.StatusBadRequest, "malformed_request"},
	} {
		answer := call(t, c, http.MethodPost, "/api/deploy/apps", request.body)
		if answer.Status != request.status || answer.JSON()["code"] != request.code {
			t.Errorf("%s: got %.300s, want %d %s", what, answer, request.status, request.code)
		}
		isProblem(t, answer)
	}
	nothingOf(t, c, sub)
}

func TestEveryFieldAtFaultIsNamed(t *testing.T) {
	t.Parallel()
	s := platform(t)
	c := s.Client()
	many := map[string]string{}
	for i := range 51 {
		many[fmt.Sprintf("V%d", i)] = "x"
	}
	image := "docker.io/library/nginx"
	for i, wrong := range []struct {
		what   string
		change map[string]any
		fields []string
	}{
		{"no subdomain", map[string]any{"subdomain": ""}, []string{"subdomain"}},
		{"capital letters", map[string]any{"subdomain": "Shop"}, []string{"subdomain"}},
		{"33 characters", map[string]any{"subdomain": strings.Repeat("a", 33)}, []string{"subdomain"}},
		{"a hyphen first", map[string]any{"subdomain": "-shop"}, []string{"subdomain"}},
		{"a hyphen last", map[string]any{"subdomain": "shop-"}, []string{"subdomain"}},
		{"a dot", map[string]any{"subdomain": "a.b"}, []string{"subdomain"}},
		{"a newline", map[string]any{"subdomain": "shop\n"}, []string{"subdomain"}},
		{"letters from elsewhere", map[string]any{"subdomain": "caf\u00e9"}, []string{"subdomain"}},
		{"the platform's own", map[string]any{"subdomain": "www"}, []string{"subdomain"}},
		{"no image", map[string]any{"image": ""}, []string{"image"}},
		{"another registry", map[string]any{"image": "quay.io/a/b"}, []string{"image"}},
		{"a registry that only looks allowed", map[string]any{"image": "ghcr.io.evil.example/a/b"}, []string{"image"}},
		{"no reference at all", map[string]any{"image": "ghcr.io/UPPER CASE"}, []string{"image"}},
		{"an unknown tier", map[string]any{"tier": "gold"}, []string{"tier"}},
		{"no tier", map[string]any{"tier": ""}, []string{"tier"}},
		{"port 0", map[string]any{"port": 0}, []string{"port"}},
		{"a port below 0", map[string]any{"port": -1}, []string{"port"}},
		{"port 65536", map[string]any{"port": 65536}, []string{"port"}},
		{"51 variables", map[string]any{"env_vars": many}, []string{"env_vars"}},
		{"bad variable names", map[string]any{"env_vars": map[string]string{"1A": "x", "B-C": "x", "": "x", "OK": "x"}},
			[]string{"env_vars.", "env_vars.1A", "env_vars.B-C"}},
		{"a long value", map[string]any{"env_vars": map[string]string{"A": strings.Repeat("x", 32<<10+1)}}, []string{"env_vars.A"}},
		{"a domain the tier has not", map[string]any{"custom_domain": "www.example.com"}, []string{"custom_domain"}},
		{"no domain at all", map[string]any{"custom_domain": "not a domain", "tier": "btc-pro"}, []string{"custom_domain"}},
		{"all at once", map[string]any{"subdomain": "-", "image": "x", "tier": "gold", "port": 70000, "env_vars": map[string]string{"1": "x"}},
			[]string{"env_vars.1", "image", "port", "subdomain", "tier"}},
	} {
		sub := name(t, fmt.Sprint(i))
		body := map[string]any{"subdomain": sub, "image": image, "tier": "buddo-starter"}
		for k, v := range wrong.change {
			body[k] = v
		}
		answer := call(t, c, http.MethodPost, "/api/deploy/apps", body)
		if answer.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: got %.300s, want 422", wrong.what, answer)
			continue
		}
		isProblem(t, answer)
		if got := fieldsOf(answer); !slices.Equal(got, wrong.fields) {
			t.Errorf("%s: the fields at fault are %v, want %v: %s", wrong.what, got, wrong.fields, answer)
		}
		nothingOf(t, c, sub)
	}
}

func TestATakenSubdomainIsRefusedUntilItIsFree(t *testing.T) {
	t.Parallel()
	s := platform(t)
	image := push(t, s, "latest", "one")
	a := create(t, s, map[string]any{"image": image, "port": 8080})
	body := map[string]any{"image": image, "tier": "buddo-starter", "subdomain": a.subdomain}
	answer := expect(t, a.c, http.StatusUnprocessableEntity, http.MethodPost, "/api/deploy/apps", body)
	if got := fieldsOf(answer); !slices.Equal(got, []string{"subdomain"}) {
		t.Errorf("the fields at fault are %v: %s", got, answer)
	}
	a.destroy()
	create(t, s, body)
}

func TestUnknownAndForeignDeployments(t *testing.T) {
	t.Parallel()
	s := platform(t)
	c := s.Client()
	for _, id := range []string{"0198f000-0000-7000-8000-000000000000", "nonsense", "..%2f..", "*", strings.Repeat("a", 300)} {
		for _, call := range []struct{ method, path string }{
			{http.MethodGet, ""}, {http.MethodGet, "/status"}, {http.MethodGet, "/logs"}, {http.MethodGet, "/events"},
			{http.MethodPost, "/restart"}, {http.MethodPost, "/stop"}, {http.MethodDelete, ""},
		} {
			answer, err := c.Do(t.Context(), call.method, "/api/deploy/apps/"+id+call.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Status != http.StatusNotFound {
				t.Errorf("%s %s%s: got %.200s, want 404", call.method, id, call.path, answer)
			}
			isProblem(t, answer)
		}
	}
}

func TestACommandThatTheStateForbids(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	a.do("stop")
	a.wait("stopped")
	a.destroy()
	a.wait("destroyed")
	for _, action := range []string{"/restart", "/stop"} {
		answer := expect(t, a.c, http.StatusUnprocessableEntity, http.MethodPost, a.path(action), nil)
		if answer.JSON()["code"] != "invalid_state" {
			t.Errorf("%s of what is destroyed: %s", action, answer)
		}
		isProblem(t, answer)
	}
}

func TestAWrongMethodIsNotAnEndpoint(t *testing.T) {
	t.Parallel()
	s := platform(t)
	for path, method := range map[string]string{"/api/deploy/tiers": http.MethodPost, "/api/deploy/apps": http.MethodPut, "/api/deploy/nothing": http.MethodGet} {
		answer := call(t, s.Client(), method, path, nil)
		if answer.Status != http.StatusNotFound && answer.Status != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %s", method, path, answer)
		}
		isProblem(t, answer)
	}
}

func fieldsOf(answer client.Answer) []string {
	var fields []string
	for _, f := range answer.List("fields") {
		field, _ := f["field"].(string)
		if message, _ := f["message"].(string); message == "" {
			field += " without a message"
		}
		fields = append(fields, field)
	}
	slices.Sort(fields)
	return fields
}

// nothingOf checks that a refused request left no row behind.
func nothingOf(t *testing.T, c *client.Client, subdomain string) {
	t.Helper()
	for _, d := range expect(t, c, http.StatusOK, http.MethodGet, "/api/deploy/apps", nil).List("deployments") {
		if d["subdomain"] == subdomain {
			t.Errorf("a refused request left %v behind", d)
		}
	}
}
