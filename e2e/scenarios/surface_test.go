package scenarios

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/e2e/client"
)

func TestHealthNamesEveryService(t *testing.T) {
	t.Parallel()
	s := platform(t)
	answer := expect(t, &client.Client{API: s.API}, http.StatusOK, http.MethodGet, "/api/v1/health", nil)
	services := answer.Object("services")
	for _, name := range []string{"identity", "billing", "scheduler", "health", "proxy-config", "node-agent", "edge", "registry", "webhooks", "domains"} {
		if services[name] != true {
			t.Errorf("service %s is %v in %s", name, services[name], answer)
		}
	}
	if m := answer.JSON(); m["version"] == nil || m["status"] == nil {
		t.Errorf("health lacks status or version: %s", answer)
	}
}

func TestTheFirstOperatorsCredentialsAreItsOwn(t *testing.T) {
	t.Parallel()
	s := platform(t)
	path := filepath.Join(s.Dir, "data", "credentials.json")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("credentials.json may be read by others: %v", info.Mode())
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var credentials map[string]any
	if err := json.Unmarshal(content, &credentials); err != nil {
		t.Fatal(err)
	}
	if credentials["api_url"] != s.API || credentials["operator_id"] == nil || credentials["access_token"] == nil {
		t.Errorf("credentials.json has %v", keys(credentials))
	}
}

func TestTiersAreListedWithPricesAndLimits(t *testing.T) {
	t.Parallel()
	s := platform(t)
	tiers := expect(t, s.Client(), http.StatusOK, http.MethodGet, "/api/deploy/tiers", nil).List("tiers")
	var slugs []string
	for _, tier := range tiers {
		slug, _ := tier["slug"].(string)
		slugs = append(slugs, slug)
		want := []string{
			"ad_reach_multiplier", "cpu_limit_millicores", "custom_domain_allowed", "id", "memory_limit_mb",
			"monthly_cost_points", "monthly_cost_sats", "monthly_stipend_points", "name", "payment_method", "slug",
		}
		if got := keys(tier); !slices.Equal(got, want) {
			t.Errorf("tier %s has the fields %v, want %v", slug, got, want)
		}
		paid, free := "monthly_cost_points", "monthly_cost_sats"
		if tier["payment_method"] == "bitcoin" {
			paid, free = free, paid
		}
		if tier[paid] == nil || tier[free] != nil {
			t.Errorf("tier %s costs %v points and %v sats by %v", slug, tier["monthly_cost_points"], tier["monthly_cost_sats"], tier["payment_method"])
		}
	}
	if !slices.Equal(slugs, []string{"buddo-starter", "buddo-pro", "btc-standard", "btc-pro"}) {
		t.Errorf("the tiers are %v", slugs)
	}
	if tiers[0]["memory_limit_mb"] != float64(256) || tiers[0]["cpu_limit_millicores"] != float64(250) {
		t.Errorf("buddo-starter is %v", tiers[0])
	}
}

func TestOpenAPIDescribesEveryEndpoint(t *testing.T) {
	t.Parallel()
	s := platform(t)
	paths := expect(t, &client.Client{API: s.API}, http.StatusOK, http.MethodGet, "/openapi.json", nil).Object("paths")
	for path, methods := range map[string][]string{
		"/api/deploy/tiers":             {"get"},
		"/api/deploy/apps":              {"get", "post"},
		"/api/deploy/apps/{id}":         {"get", "delete"},
		"/api/deploy/apps/{id}/status":  {"get"},
		"/api/deploy/apps/{id}/logs":    {"get"},
		"/api/deploy/apps/{id}/restart": {"post"},
		"/api/deploy/apps/{id}/stop":    {"post"},
		"/api/deploy/apps/{id}/events":  {"get"},
	} {
		described, _ := paths[path].(map[string]any)
		for _, method := range methods {
			if described[method] == nil {
				t.Errorf("OpenAPI lacks %s %s", method, path)
			}
		}
	}
}

func TestMetricsAreThere(t *testing.T) {
	t.Parallel()
	s := platform(t)
	answer := expect(t, &client.Client{API: s.Ops}, http.StatusOK, http.MethodGet, "/metrics", nil)
	if !strings.Contains(string(answer.Body), "go_goroutines") {
		t.Errorf("metrics are %.200s", answer.Body)
	}
}

func TestAnUnknownHostGetsAClearAnswer(t *testing.T) {
	t.Parallel()
	s := platform(t)
	host := s.Host("nobody-here")
	page, err := client.Visit(t.Context(), s.Edge, host, http.MethodGet, "/", nil, "Accept", "text/html")
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != http.StatusNotFound || !strings.Contains(string(page.Body), host) || !strings.Contains(page.Header.Get("Content-Type"), "text/html") {
		t.Errorf("got %s", page)
	}
	problem, err := client.Visit(t.Context(), s.Edge, host, http.MethodGet, "/", nil, "Accept", "application/json")
	if err != nil {
		t.Fatal(err)
	}
	if problem.Status != http.StatusNotFound || problem.JSON()["code"] != "unknown_host" {
		t.Errorf("as JSON: %s", problem)
	}
}

func TestWithoutAValidTokenNothingIsTold(t *testing.T) {
	t.Parallel()
	s := platform(t)
	for _, token := range []string{"", "wrong", s.Token + "x"} {
		for _, path := range []string{"/api/deploy/tiers", "/api/deploy/apps", "/api/deploy/apps/0198f000-0000-7000-8000-000000000000"} {
			answer := call(t, &client.Client{API: s.API, Token: token}, http.MethodGet, path, nil)
			if answer.Status != http.StatusUnauthorized || answer.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("GET %s with the token %q: %s", path, token, answer)
			}
			isProblem(t, answer)
		}
	}
}

// isProblem checks the one shape that every error has.
func isProblem(t *testing.T, answer client.Answer) {
	t.Helper()
	if got := answer.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/problem+json") {
		t.Errorf("an error has the content type %q: %s", got, answer)
	}
	m := answer.JSON()
	for _, member := range []string{"error", "message", "code"} {
		if text, _ := m[member].(string); text == "" {
			t.Errorf("an error lacks %s: %s", member, answer)
		}
	}
	if m["status"] != float64(answer.Status) {
		t.Errorf("the status within is %v, without %d", m["status"], answer.Status)
	}
}
