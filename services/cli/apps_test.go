package cli_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// apps answers the app dialect and keeps what it was sent.
func apps(t *testing.T) (p *platform, sent func() []string) {
	t.Helper()
	var mu sync.Mutex
	var calls []string
	p = &platform{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&body)
		mu.Lock()
		calls = append(calls, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
		mu.Unlock()
		release := `{"version":2,"image":"app:1","config_version":"v1","status":"active","created_at":"2026-05-21T10:00:00Z","created_by":"ci"}`
		switch what := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]; what {
		case "ps", "scale":
			_, _ = w.Write([]byte(`[{"type":"web","command":"","count":3,"status":"running"}]`))
		case "releases":
			_, _ = w.Write([]byte("[" + release + "]"))
		default:
			_, _ = w.Write([]byte(release))
		}
	}))
	t.Cleanup(p.Close)
	return p, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(calls)
	}
}

func TestAppsAreScaledAndRolledBack(t *testing.T) {
	t.Parallel()
	p, sent := apps(t)
	table := "TYPE  COUNT  STATUS   COMMAND\nweb   3      running  \n"
	p.slipway(t, "ps", "shop").want(t, 0, table)
	p.slipway(t, "ps:scale", "shop", "web=3").want(t, 0, table)
	p.slipway(t, "ps:scale", "web=3", "--app", "shop").want(t, 0, table)
	p.slipway(t, "ps", "shop", "--json").want(t, 0, `"count":3`)
	p.slipway(t, "releases", "shop").want(t, 0, "v2       active  app:1  v1")
	p.slipway(t, "releases", "shop", "--json").want(t, 0, `"version":2`)
	p.slipway(t, "rollback", "shop").want(t, 0, "v2")
	p.slipway(t, "rollback", "shop", "v1", "--json").want(t, 0, `"release":{"version":2`)
	want := []string{
		"GET /api/v1/apps/shop/ps", `POST /api/v1/apps/shop/ps/scale {"processes":{"web":3}}`, `POST /api/v1/apps/shop/ps/scale {"processes":{"web":3}}`,
		"GET /api/v1/apps/shop/ps", "GET /api/v1/apps/shop/releases", "GET /api/v1/apps/shop/releases",
		"POST /api/v1/apps/shop/rollback {}", `POST /api/v1/apps/shop/rollback {"version":1}`,
	}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestACountOrAReleaseThatIsNoneIsRefusedBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	p, sent := apps(t)
	for _, args := range [][]string{
		{"ps:scale", "shop"}, {"ps:scale", "web=3"}, {"ps:scale", "shop", "web"}, {"ps:scale", "shop", "web=-1"}, {"ps:scale", "shop", "web=x"},
		{"ps:scale", "shop", "web=1", "web=2"}, {"ps:scale", "shop", "=1"}, {"rollback", "shop", "latest"}, {"rollback", "shop", "v0"}, {"rollback"}, {"ps"},
	} {
		if got := p.slipway(t, args...); got.code != 2 {
			t.Errorf("%v: %d %s", args, got.code, got.errors)
		}
	}
	if got := sent(); len(got) != 0 {
		t.Errorf("sent %v", got)
	}
}
