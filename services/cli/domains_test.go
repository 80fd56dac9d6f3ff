package cli_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/services/cli"
)

// names is an API with the domains of one app.
func names(t *testing.T) (server *httptest.Server, asked *[]string) {
	t.Helper()
	asked = &[]string{}
	pending := map[string]any{
		"id": "1", "application_id": live, "domain": "xn--bcher-kva.example", "domain_unicode": "bücher.example", "is_primary": true, "ssl_active": false,
		"created_at": "2026-05-21T10:00:00Z", "status": "pending", "reason": "DNS has no record", "code": "not_found", "verified_at": nil, "next_check_at": "2026-05-21T10:00:05Z",
		"records": []any{
			map[string]any{"type": "CNAME", "name": "xn--bcher-kva.example", "value": "hello.apps.test", "required": false},
			map[string]any{"type": "TXT", "name": "_slipway.xn--bcher-kva.example", "value": "slipway-verify=X", "required": false},
		},
	}
	mux := http.NewServeMux()
	answer := func(pattern string, code int, body any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			*asked = append(*asked, r.Method+" "+r.URL.Path)
			w.WriteHeader(code)
			if body != nil {
				_ = json.NewEncoder(w).Encode(body)
			}
		})
	}
	answer("GET /api/v1/applications/hello/domains", 200, map[string]any{"domains": []any{pending}})
	answer("GET /api/v1/applications/none/domains", 200, map[string]any{"domains": []any{}})
	answer("POST /api/v1/applications/hello/domains", 201, map[string]any{"domain": pending})
	answer("DELETE /api/v1/applications/hello/domains/{d}", 204, nil)
	answer("POST /api/v1/applications/hello/domains/{d}/primary", 204, nil)
	answer("POST /api/v1/applications/hello/domains/good.example/verify", 200, map[string]any{"success": true, "message": "Domain verified successfully"})
	answer("POST /api/v1/applications/hello/domains/bad.example/verify", 200, map[string]any{"success": false, "message": "It leads to 192.0.2.1."})
	server = httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server, asked
}

func TestCustomDomains(t *testing.T) {
	t.Parallel()
	server, asked := names(t)
	for _, step := range []struct {
		args   string
		exit   int
		says   []string
		called string
	}{
		{"domains hello", cli.ExitOK, []string{"xn--bcher-kva.example (bücher.example)  pending  yes", "DNS has no record", "CNAME  xn--bcher-kva.example", "hello.apps.test", "domains:verify hello"}, "GET /api/v1/applications/hello/domains"},
		{"domains hello --json", cli.ExitOK, []string{`"status":"pending"`, `"value":"hello.apps.test"`}, "GET /api/v1/applications/hello/domains"},
		{"domains none", cli.ExitOK, []string{"domains:add none NAME"}, "GET /api/v1/applications/none/domains"},
		{"domains none --json", cli.ExitOK, []string{`{"domains":[]}`}, "GET /api/v1/applications/none/domains"},
		{"domains:add hello bücher.example", cli.ExitOK, []string{"is added", "CNAME", "_slipway.xn--bcher-kva.example  slipway-verify=X"}, "POST /api/v1/applications/hello/domains"},
		{"domains:add hello bücher.example --json", cli.ExitOK, []string{`"records":[`}, "POST /api/v1/applications/hello/domains"},
		{"domains:verify hello good.example", cli.ExitOK, []string{"Domain verified successfully"}, "POST /api/v1/applications/hello/domains/good.example/verify"},
		{"domains:verify hello bad.example", cli.ExitFailed, []string{"leads to 192.0.2.1"}, "POST /api/v1/applications/hello/domains/bad.example/verify"},
		{"domains:primary hello good.example", cli.ExitOK, []string{"good.example is the primary domain."}, "POST /api/v1/applications/hello/domains/good.example/primary"},
		{"domains:remove hello good.example", cli.ExitOK, []string{"good.example is removed."}, "DELETE /api/v1/applications/hello/domains/good.example"},
		{"domains:remove hello", cli.ExitUsage, []string{"2 arg"}, ""},
	} {
		*asked = nil
		got := run(t, map[string]string{"SLIPWAY_API_URL": server.URL, "SLIPWAY_TOKEN": token}, strings.Fields(step.args)...)
		if got.code != step.exit {
			t.Errorf("%s: ended with %d: %s%s", step.args, got.code, got.out, got.errors)
		}
		for _, want := range step.says {
			if !strings.Contains(got.out+got.errors, want) {
				t.Errorf("%s: wanted %q in\n%s%s", step.args, want, got.out, got.errors)
			}
		}
		if calls := strings.Join(*asked, " "); calls != step.called {
			t.Errorf("%s: asked %q", step.args, calls)
		}
	}
}
