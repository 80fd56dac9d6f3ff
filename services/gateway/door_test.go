package gateway_test

import (
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/services/gateway"
	"github.com/slipway-paas/slipway/services/gateway/oauth"
)

func TestEveryAnswerHasItsHeaders(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	for _, path := range []string{"/api/deploy/apps", "/api/deploy/apps/" + id + "/status", "/nothing", "/openapi.json", "/api/v1/health"} {
		h := s.call(t, "GET", path, "", "X-Request-Id: my-id.1").header
		if h.Get("X-Request-Id") != "my-id.1" || h.Get("X-Content-Type-Options") != "nosniff" ||
			h.Get("Content-Security-Policy") == "" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, h)
		}
	}
	for _, bad := range []string{strings.Repeat("x", 129), "a b", "a\"b"} {
		got := s.call(t, "GET", "/nothing", "", "X-Request-Id: "+bad).header.Get("X-Request-Id")
		if got == bad || len(got) != 16 {
			t.Errorf("the id %q became %q, want one of ours", bad, got)
		}
	}
}

func TestHeadIsGetWithoutBody(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	for _, path := range []string{"/api/deploy/apps", "/api/deploy/apps/" + id + "/status", "/api/deploy/apps/" + id + "/events"} {
		if got := s.call(t, "HEAD", path, ""); got.status != 200 || got.body != "" {
			t.Errorf("HEAD %s: %d %q", path, got.status, got.body)
		}
	}
}

func TestHealthSaysWhatIsReady(t *testing.T) {
	t.Parallel()
	s := begin(t)
	s.services = map[string]bool{"scheduler": false, "identity": true}
	steps := []struct {
		scheduler bool
		code      int
		status    string
	}{{false, 503, "starting"}, {true, 200, "ok"}, {false, 503, "degraded"}}
	for _, step := range steps {
		s.services = map[string]bool{"scheduler": step.scheduler, "identity": true}
		got := s.call(t, "GET", "/api/v1/health", "", "Authorization: ")
		if got.status != step.code {
			t.Errorf("%s: got %d", step.status, got.status)
		}
		same(t, map[string]any{
			"status": step.status, "version": "1.2.3", "services": map[string]any{"scheduler": step.scheduler, "identity": true},
		}, got.json(t))
	}
}

func TestAnEdgeThatIsCutOffShowsWithoutTakingThePlatformDown(t *testing.T) {
	t.Parallel()
	living, silent := 0, 0
	s := begin(t, func(_ *gateway.Config, d *gateway.Deps) {
		d.Edges = func() (int, int) { return living, silent }
	})
	steps := []struct {
		what           string
		ready          bool // what a look at the edge of this machine found
		living, silent int
		code           int
		status         string
		edge           bool
	}{
		{"nobody heard yet", false, 0, 0, 503, "starting", false},
		{"all heard", true, 2, 0, 200, "ok", true},
		{"one of two is cut off", true, 1, 1, 200, "degraded", false},
		{"the other is cut off too", true, 0, 2, 503, "degraded", false},
		{"this machine's has ended, another one serves", false, 1, 0, 200, "degraded", false},
		{"it is back", true, 2, 0, 200, "ok", true},
	}
	for _, step := range steps {
		living, silent = step.living, step.silent
		s.services = map[string]bool{"scheduler": true, "edge": step.ready}
		got := s.call(t, "GET", "/api/v1/health", "", "Authorization: ")
		if got.status != step.code {
			t.Errorf("%s: got %d", step.what, got.status)
		}
		same(t, map[string]any{
			"status": step.status, "version": "1.2.3", "services": map[string]any{"scheduler": true, "edge": step.edge},
		}, got.json(t))
	}
}

func TestTheOpenAPIDocumentListsEveryPath(t *testing.T) {
	t.Parallel()
	s := begin(t)
	got := s.call(t, "GET", "/openapi.json", "", "Authorization: ")
	doc := got.json(t)
	paths := doc["paths"].(map[string]any)
	all, err := gateway.RESTMethods()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		method, path := r[0], r[1]
		if item, _ := paths[path].(map[string]any); item[strings.ToLower(method)] == nil {
			t.Errorf("%s %s is not in the document", method, path)
		}
	}
	for _, path := range []string{
		"/api/deploy/apps/{id}/events", "/api/v1/events", "/api/v1/apps/{name}/logs", "/api/v1/health", "/api/oauth/authorize", "/api/oauth/token",
		"/api/oauth/revoke", "/api/oauth/introspect", "/api/oauth/device/code",
	} {
		if paths[path] == nil {
			t.Errorf("%s, which is no method's, is not in the document", path)
		}
	}
	create := paths["/api/deploy/apps"].(map[string]any)["post"].(map[string]any)["responses"].(map[string]any)
	if create["201"] == nil || create["200"] != nil || create["422"] == nil {
		t.Errorf("create answers %v", create)
	}
	components := doc["components"].(map[string]any)
	if !strings.Contains(got.body, `"RateLimit-Policy":{"$ref":"#/components/headers/RateLimitPolicy"}`) {
		t.Error("answers do not tell of the rate limits")
	}
	// OAuth's own protocols say what a repeated request means: a code or a refresh token
	// that comes twice is a theft.
	protocols := []string{oauth.PathToken, oauth.PathRevoke, oauth.PathIntrospect, oauth.PathDeviceCode}
	for path, item := range paths {
		for method, op := range item.(map[string]any) {
			text, err := json.Marshal(op)
			if err != nil {
				t.Fatal(err)
			}
			if repeats := strings.Contains(string(text), "#/components/parameters/IdempotencyKey"); repeats != (method == "post" && !slices.Contains(protocols, path)) {
				t.Errorf("%s %s takes an Idempotency-Key: %v", method, path, repeats)
			}
		}
	}
	schemas := components["schemas"].(map[string]any)
	deployment := schemas["Deployment"].(map[string]any)["properties"].(map[string]any)
	if deployment["deploy_tier_id"] == nil || deployment["operator_id"] != nil {
		t.Errorf("the Deployment is not the dialect's: %v", deployment)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				kind, name, found := strings.Cut(strings.TrimPrefix(ref, "#/components/"), "/")
				if of, ok := components[kind].(map[string]any); !found || !ok || of[name] == nil {
					t.Errorf("%s points at nothing", ref)
				}
			}
			for _, inner := range v {
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	walk(doc)
}

func TestAnAnswerToAPollIsTheSameOnBothWays(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	s.happen(t, id, &deploymentv1.DeploymentScheduled{ReleaseId: "r1", Placements: []*deploymentv1.Placement{{InstanceId: "i1"}}})
	path := "/api/deploy/apps/" + id + "/status"
	eventually(t, "the view sees it", func() bool { return s.call(t, "GET", path, "").json(t)["status"] == "deploying" })
	// A query keeps the path; an upper-case id takes the common way.
	slow := s.call(t, "GET", "/api/deploy/apps/"+strings.ToUpper(id)+"/status", "")
	same(t, s.call(t, "GET", path+"?x=1", "").json(t), slow.json(t))
}

// Whatever comes over the line, the gateway answers something or hangs up, and lives.
func TestRubbishOnTheLine(t *testing.T) {
	t.Parallel()
	s := begin(t)
	lines := []string{
		"\x00\x01\x02\x03\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
		"GET /api/deploy/apps HTTP/1.1\r\n\r\n", "GET /api/deploy/apps HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"POST /api/deploy/apps HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
		"POST /api/deploy/apps HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
	}
	for _, line := range lines {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		// What the gateway does with half a request may be a reset: any end is fine.
		_, _ = io.WriteString(conn, line)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		answer, err := io.ReadAll(conn)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%.40q: the line stayed open: %.80q", line, answer)
		}
		_ = conn.Close()
	}
	if got := s.call(t, "GET", "/api/deploy/apps", ""); got.status != 200 || !json.Valid([]byte(got.body)) {
		t.Errorf("afterwards: %d %s", got.status, got.body)
	}
}
