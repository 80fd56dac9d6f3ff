package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

const unknownID = "550e8400-e29b-41d4-a716-446655440000"

func same(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTheNineEndpointsAnswerInTheSeedsShape(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	details, err := structpb.NewStruct(map[string]any{"reason": "because"})
	if err != nil {
		t.Fatal(err)
	}
	at := timestamppb.New(time.Date(2026, 5, 21, 10, 0, 5, 0, time.UTC))
	s.scheduler.set(func(f *fakeScheduler) {
		f.logs = []*schedulerv1.LogEntry{
			{Id: "1", Action: "create", Status: "completed", InitiatedBy: "app-1", InsertedAt: at},
			{Id: "2", Action: "deploy", Status: "failed", InsertedAt: at, Details: details},
		}
	})
	one := map[string]any{
		"id": id, "app_id": "app-1", "deploy_tier_id": "tier-1", "container_name": "my-app-1", "container_image": "ghcr.io/a/b:1",
		"host_server": nil, "subdomain": "my-app", "custom_domain": nil, "status": "pending", "status_reason": nil,
		"health_status": "unknown", "last_health_check": nil, "billing_status": "active", "memory_limit_mb": 256.0,
		"cpu_limit_millicores": 250.0, "inserted_at": "2026-05-21T10:00:00.123Z", "deployed_at": nil, "stopped_at": nil,
	}
	cases := []struct {
		method, path string
		status       int
		want         map[string]any
	}{
		{"GET", "/api/deploy/tiers", 200, map[string]any{"tiers": []any{map[string]any{
			"id": "tier-1", "name": "Buddo Starter", "slug": "buddo-starter", "payment_method": "buddo_points",
			"monthly_cost_points": 500.0, "monthly_cost_sats": nil, "memory_limit_mb": 256.0, "cpu_limit_millicores": 250.0,
			"custom_domain_allowed": false, "monthly_stipend_points": 0.0, "ad_reach_multiplier": 1.5,
		}}}},
		{"GET", "/api/deploy/apps", 200, map[string]any{"deployments": []any{one}}},
		{"GET", "/api/deploy/apps/" + id, 200, map[string]any{"deployment": one}},
		{"GET", "/api/deploy/apps/" + id + "/status", 200, map[string]any{
			"id": id, "status": "pending", "subdomain": "my-app", "health_status": "unknown", "last_health_check": nil,
		}},
		{"GET", "/api/deploy/apps/" + id + "/logs", 200, map[string]any{"logs": []any{
			map[string]any{"id": "1", "action": "create", "status": "completed", "initiated_by": "app-1", "inserted_at": "2026-05-21T10:00:05Z", "details": nil},
			map[string]any{"id": "2", "action": "deploy", "status": "failed", "initiated_by": nil, "inserted_at": "2026-05-21T10:00:05Z", "details": map[string]any{"reason": "because"}},
		}}},
		{"POST", "/api/deploy/apps/" + id + "/restart", 200, map[string]any{"deployment": one}},
		{"POST", "/api/deploy/apps/" + id + "/stop", 200, map[string]any{"deployment": one}},
		{"DELETE", "/api/deploy/apps/" + id, 200, map[string]any{"message": "Deployment destroyed", "id": id}},
	}
	for _, c := range cases {
		got := s.call(t, c.method, c.path, "")
		if got.status != c.status || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s: %s", c.method, c.path, got.status, got.header.Get("Content-Type"), got.body)
			continue
		}
		same(t, c.want, got.json(t))
	}
}

func TestCreateHandsEverythingOnAndAnswers201(t *testing.T) {
	t.Parallel()
	s := begin(t)
	got := s.call(t, "POST", "/api/deploy/apps", `{"subdomain":"my-app","image":"ghcr.io/a/b","tier":"btc-pro","port":8080,"custom_domain":"a.example","env_vars":{"A":"1"}}`)
	if got.status != http.StatusCreated {
		t.Fatalf("%d %s", got.status, got.body)
	}
	made := got.json(t)["deployment"].(map[string]any)
	if made["status"] != "pending" || made["inserted_at"] != "2026-05-21T10:00:00Z" {
		t.Errorf("got %v", made)
	}
	req := s.scheduler.created
	if req.GetPort() != 8080 || req.GetCustomDomain() != "a.example" || req.GetEnvVars()["A"] != "1" || req.GetTier() != "btc-pro" ||
		req.GetPrincipal().GetOperatorId() != "op-1" || req.GetPrincipal().GetAppId() != "app-1" {
		t.Errorf("the scheduler was asked for %v", req)
	}
	if s.call(t, "POST", "/api/deploy/apps", `{"subdomain":"my-app","image":"ghcr.io/a/b","tier":"btc-pro"}`); s.scheduler.created.Port != nil {
		t.Error("an absent port was sent as one")
	}
}

func TestEmptyListsAreLists(t *testing.T) {
	t.Parallel()
	s := begin(t)
	if got := s.call(t, "GET", "/api/deploy/apps", ""); got.body != "{\"deployments\":[]}\n" {
		t.Errorf("got %q", got.body)
	}
}

// wantProblem checks the one shape of errors.
func wantProblem(t *testing.T, got reply, status int, code string) map[string]any {
	t.Helper()
	if got.status != status || got.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s %s, want problem %d", got.status, got.header.Get("Content-Type"), got.body, status)
		return map[string]any{}
	}
	p := got.json(t)
	if p["code"] != code || p["status"] != float64(status) || p["error"] != p["message"] || p["detail"] != p["message"] || p["message"] == "" || p["title"] == "" {
		t.Errorf("got %v, want code %s", p, code)
	}
	return p
}

func TestBadRequestsGetTheOneShapeOfErrors(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	const apps = "/api/deploy/apps"
	big := `{"subdomain":"` + strings.Repeat("a", 1<<20) + `"}`
	cases := map[string]struct {
		method, path, body string
		headers            []string
		status             int
		code               string
	}{
		"no token":             {"GET", apps, "", []string{"Authorization: "}, 401, "unauthorized"},
		"a wrong token":        {"GET", apps, "", []string{"Authorization: Bearer nope"}, 401, "unauthorized"},
		"another scheme":       {"GET", apps, "", []string{"Authorization: Basic c2xw"}, 401, "unauthorized"},
		"a poll without token": {"GET", apps + "/" + id + "/status", "", []string{"Authorization: "}, 401, "unauthorized"},
		"no scope":             {"GET", apps, "", []string{"Authorization: Bearer " + readerToken}, 403, "forbidden"},
		"a poll without scope": {"GET", apps + "/" + id + "/status", "", []string{"Authorization: Bearer " + readerToken}, 403, "forbidden"},
		"another's":            {"GET", apps + "/" + id, "", []string{"Authorization: Bearer " + strangerToken}, 403, "forbidden"},
		"another's status":     {"GET", apps + "/" + id + "/status", "", []string{"Authorization: Bearer " + strangerToken}, 403, "forbidden"},
		"another's events":     {"GET", apps + "/" + id + "/events", "", []string{"Authorization: Bearer " + strangerToken}, 403, "forbidden"},
		"another's restart":    {"POST", apps + "/" + id + "/restart", "", []string{"Authorization: Bearer " + strangerToken}, 403, "forbidden"},
		"no such path":         {"GET", "/nothing", "", nil, 404, "not_found"},
		"no such path below":   {"GET", apps + "/" + id + "/nothing", "", nil, 404, "not_found"},
		"a slash too much":     {"GET", apps + "/", "", nil, 404, "not_found"},
		"two slashes":          {"GET", "//api/deploy/apps", "", nil, 404, "not_found"},
		"dots":                 {"GET", "/api/../api/deploy/apps", "", nil, 404, "not_found"},
		"no UUID":              {"GET", apps + "/my-app", "", nil, 404, "not_found"},
		"no UUID in status":    {"GET", apps + "/" + strings.Repeat("x", 36) + "/status", "", nil, 404, "not_found"},
		"no UUID to destroy":   {"DELETE", apps + "/%2e%2e", "", nil, 404, "not_found"},
		"unknown":              {"GET", apps + "/" + unknownID, "", nil, 404, "not_found"},
		"unknown status":       {"GET", apps + "/" + unknownID + "/status", "", nil, 404, "not_found"},
		"unknown events":       {"GET", apps + "/" + unknownID + "/events", "", nil, 404, "not_found"},
		"unknown logs":         {"GET", apps + "/" + unknownID + "/logs", "", nil, 404, "not_found"},
		"wrong method":         {"PUT", apps, "{}", nil, 405, "method_not_allowed"},
		"wrong method on one":  {"PATCH", apps + "/" + id, "{}", nil, 405, "method_not_allowed"},
		"malformed":            {"POST", apps, `{"subdomain":`, nil, 400, "malformed_request"},
		"empty":                {"POST", apps, "", nil, 400, "malformed_request"},
		"unknown field":        {"POST", apps, `{"sub_domain":"x"}`, nil, 400, "malformed_request"},
		"port as text":         {"POST", apps, `{"port":"x"}`, nil, 400, "malformed_request"},
		"port as fraction":     {"POST", apps, `{"port":3.5}`, nil, 400, "malformed_request"},
		"garbage after":        {"POST", apps, `{"port":3} more`, nil, 400, "malformed_request"},
		"a body to restart":    {"POST", apps + "/" + id + "/restart", `{"force":true}`, nil, 400, "malformed_request"},
		"not JSON by name":     {"POST", apps, `{"port":3}`, []string{"Content-Type: text/plain"}, 415, "unsupported_media_type"},
		"a form":               {"POST", apps, `port=3`, []string{"Content-Type: application/x-www-form-urlencoded"}, 400, "malformed_request"},
		"compressed":           {"POST", apps, `{"port":3}`, []string{"Content-Encoding: gzip"}, 415, "unsupported_media_type"},
		"too large":            {"POST", apps, big, nil, 413, "body_too_large"},
		"too large to restart": {"POST", apps + "/" + id + "/restart", big, nil, 413, "body_too_large"},
		"a wrong place":        {"GET", apps + "/" + id + "/events", "", []string{"Last-Event-ID: -1"}, 400, "malformed_request"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := s.call(t, c.method, c.path, c.body, c.headers...)
			wantProblem(t, got, c.status, c.code)
			switch c.status {
			case 401:
				if !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer") {
					t.Error("401 without WWW-Authenticate")
				}
			case 405:
				if !strings.Contains(got.header.Get("Allow"), "GET") {
					t.Errorf("405 with Allow %q", got.header.Get("Allow"))
				}
			}
		})
	}
}

func TestAnUnknownFieldIsNamed(t *testing.T) {
	t.Parallel()
	s := begin(t)
	p := wantProblem(t, s.call(t, "POST", "/api/deploy/apps", `{"imgae":"x"}`), 400, "malformed_request")
	if m, _ := p["message"].(string); !strings.Contains(m, `"imgae"`) || !strings.Contains(m, "image") {
		t.Errorf("%q names neither the field nor those there are", m)
	}
}

func TestALargeBodyWithoutLengthIsRefusedToo(t *testing.T) {
	t.Parallel()
	s := begin(t)
	reader, writer := io.Pipe()
	go func() {
		chunk := []byte(strings.Repeat(" ", 64<<10))
		for range 64 {
			if _, err := writer.Write(chunk); err != nil {
				return
			}
		}
		_ = writer.Close()
	}()
	defer reader.Close()
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/api/deploy/apps", reader)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+ownerToken)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d, want 413", res.StatusCode)
	}
}

func TestWhatTheSchedulerRefusesComesOutAsItWas(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	fields := []problem.Field{{Field: "port", Message: "must be 1-65535"}, {Field: "tier", Message: "is unknown"}}
	cases := []struct {
		fails  error
		status int
		code   string
	}{
		{problem.Validation(fields), 422, "validation_failed"},
		{problem.InvalidState("The deployment is destroyed."), 422, "invalid_state"},
		{problem.Conflict("Try again."), 409, "conflict"},
		{problem.Limit("The limit of this tier is reached.", time.Minute), 429, "limit_reached"},
		{problem.Unavailable("The log is not available.", 2*time.Second), 503, "unavailable"},
		{status.Error(codes.Unavailable, "connection refused to 10.0.0.1"), 503, "unavailable"},
		{status.Error(codes.Internal, "planted-secret"), 500, "internal"},
	}
	for _, c := range cases {
		s.scheduler.set(func(f *fakeScheduler) { f.fails = c.fails })
		got := s.call(t, "POST", "/api/deploy/apps/"+id+"/restart", "")
		p := wantProblem(t, got, c.status, c.code)
		if strings.Contains(got.body, "planted-secret") || strings.Contains(got.body, "10.0.0.1") {
			t.Errorf("what went wrong inside is told outside: %s", got.body)
		}
		if list, _ := p["fields"].([]any); c.code == "validation_failed" && len(list) != 2 {
			t.Errorf("fields are %v, want both", p["fields"])
		}
		if want := map[int]string{429: "60"}[c.status]; want != "" && got.header.Get("Retry-After") != want {
			t.Errorf("Retry-After is %q, want %s", got.header.Get("Retry-After"), want)
		}
	}
	s.scheduler.set(func(f *fakeScheduler) { f.fails, f.panics = nil, true })
	wantProblem(t, s.call(t, "GET", "/api/deploy/apps/"+id, ""), 500, "internal")
	s.scheduler.set(func(f *fakeScheduler) { f.panics = false })
	if got := s.call(t, "GET", "/api/deploy/apps/"+id, ""); got.status != 200 {
		t.Errorf("after a panic: %d %s", got.status, got.body)
	}
}

func TestWithoutIdentityNobodyIsLetIn(t *testing.T) {
	t.Parallel()
	s := begin(t)
	s.identity.fails = status.Error(codes.Unavailable, "gone")
	p := wantProblem(t, s.call(t, "GET", "/api/deploy/apps", ""), 503, "unavailable")
	if m, _ := p["message"].(string); !strings.Contains(m, "access tokens") {
		t.Errorf("%q does not say what is missing", m)
	}
}
