package cli_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/cli"
)

// issuer is a platform that signs a device in at the second time of asking.
type issuer struct {
	*httptest.Server
	mu        sync.Mutex
	polls     int
	refreshed int
	scope     string
	refuses   string
	// access and refresh are the tokens that hold.
	access, refresh string
}

func openIssuer(t *testing.T) *issuer {
	t.Helper()
	s := &issuer{}
	answer := func(w http.ResponseWriter, code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	issue := func(w http.ResponseWriter, n string, seconds int) {
		s.access, s.refresh = "slp_"+n, "slr_"+n
		answer(w, 200, map[string]any{"access_token": s.access, "refresh_token": s.refresh, "token_type": "Bearer", "expires_in": seconds})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/oauth/device/code", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.scope = r.FormValue("scope")
		answer(w, 200, map[string]any{
			"device_code": "sld_x", "user_code": "BCDF-GHJK", "verification_uri": s.URL + "/d", "verification_uri_complete": s.URL + "/d?user_code=BCDF-GHJK",
			"expires_in": 60, "interval": 1,
		})
	})
	mux.HandleFunc("POST /api/oauth/token", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case r.FormValue("client_id") != "slipway-cli":
			answer(w, 401, map[string]any{"error": "invalid_client"})
		case r.FormValue("grant_type") == "refresh_token":
			if r.FormValue("refresh_token") != s.refresh {
				answer(w, 400, map[string]any{"error": "invalid_grant", "error_description": "It was used before."})
				return
			}
			s.refreshed++
			issue(w, "second", 3600)
		case s.refuses != "":
			answer(w, 400, map[string]any{"error": s.refuses, "error_description": "no"})
		default:
			if s.polls++; s.polls == 1 {
				answer(w, 400, map[string]any{"error": "authorization_pending"})
				return
			}
			issue(w, "first", 30)
		}
	})
	authorized := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if r.Header.Get("Authorization") != "Bearer "+s.access {
				answer(w, 401, map[string]any{"status": 401, "code": "unauthorized", "message": "no"})
				return
			}
			next(w, r)
		}
	}
	mux.HandleFunc("GET /api/oauth/token", authorized(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"operator_id": "op", "org_id": "acme", "app_id": "slipway-cli", "scopes": []string{"deploy:manage"}, "role": "owner", "expires_at": nil})
	}))
	mux.HandleFunc("GET /api/oauth/grants", authorized(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"grants": []any{map[string]any{
			"id": "g1", "org_id": "acme", "client_id": "c", "app_name": "Evil \x1b[2J app", "scopes": []string{"deploy:read"},
			"created_at": "2026-05-21T10:00:00Z", "last_used_at": "2026-05-21T10:00:00Z", "expires_at": "2026-06-21T10:00:00Z",
		}}})
	}))
	mux.HandleFunc("DELETE /api/oauth/grants/g1", authorized(func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, map[string]any{"id": "g1"}) }))
	mux.HandleFunc("GET /api/v1/orgs", authorized(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"orgs": []any{map[string]any{"id": "acme", "name": "Acme", "role": "owner"}, map[string]any{"id": "beta", "name": "Beta", "role": "viewer"}}})
	}))
	mux.HandleFunc("POST /api/oauth/revoke", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		var body map[string]string
		if json.NewDecoder(r.Body).Decode(&body) == nil && body["token"] == s.refresh {
			s.access, s.refresh = "", ""
		}
		answer(w, 200, map[string]any{})
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// home is somebody's machine.
type home struct {
	dir string
	env map[string]string
}

func (h home) file() string { return filepath.Join(h.dir, "slipway", "credentials.json") }

func (h home) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Run(t.Context(), args, cli.Env{
		Version: "test", Getenv: func(n string) string { return h.env[n] }, ConfigDir: h.dir, Stdout: &out, Stderr: &errs,
	})
	return code, out.String(), errs.String()
}

func TestSigningInActingAndSigningOut(t *testing.T) {
	t.Parallel()
	s, h := openIssuer(t), home{dir: t.TempDir(), env: map[string]string{}}
	if code, _, errs := h.run(t, "whoami"); code != cli.ExitUnauthorized || !strings.Contains(errs, "slipway login") {
		t.Errorf("before signing in: %d %s", code, errs)
	}
	code, out, errs := h.run(t, "login", s.URL, "--admin")
	if code != cli.ExitOK || !strings.Contains(errs, s.URL+"/d?user_code=BCDF-GHJK") || !strings.Contains(errs, "BCDF-GHJK (or open") || !strings.Contains(out, "acme") {
		t.Fatalf("login: %d %s %s", code, out, errs)
	}
	if s.scope != "deploy:manage apps:write billing:read events:read admin" {
		t.Errorf("login asks for %q", s.scope)
	}
	info, err := os.Stat(h.file())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the credentials: %v %v", info, err)
	}
	// The token has half a minute left: it is refreshed first, once, whoever comes.
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if code, out, errs := h.run(t, "whoami"); code != cli.ExitOK || !strings.Contains(out, "slipway-cli") {
				t.Errorf("whoami: %d %s %s", code, out, errs)
			}
		})
	}
	all.Wait()
	if s.refreshed != 1 {
		t.Errorf("refreshed %d times, want once", s.refreshed)
	}
	if code, out, _ := h.run(t, "tokens"); code != cli.ExitOK || !strings.Contains(out, "g1") || strings.Contains(out, "\x1b") {
		t.Errorf("tokens: %d %q", code, out)
	}
	if code, out, _ := h.run(t, "tokens", "revoke", "g1"); code != cli.ExitOK || out != "Revoked.\n" {
		t.Errorf("revoke: %d %q", code, out)
	}
	if code, out, _ := h.run(t, "orgs"); code != cli.ExitOK || !strings.Contains(out, "*  acme") || strings.Contains(out, "*  beta") {
		t.Errorf("orgs: %d %q", code, out)
	}
	// The environment's token goes before the file's, and is not refreshed.
	h.env["SLIPWAY_TOKEN"], h.env["SLIPWAY_API_URL"] = "slp_other", s.URL
	if code, _, _ := h.run(t, "whoami"); code != cli.ExitUnauthorized {
		t.Errorf("with another token in the environment: %d", code)
	}
	delete(h.env, "SLIPWAY_TOKEN")
	if code, out, errs := h.run(t, "logout"); code != cli.ExitOK || s.refresh != "" {
		t.Errorf("logout: %d %s %s", code, out, errs)
	}
	if left, err := os.ReadDir(filepath.Dir(h.file())); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if code, _, _ := h.run(t, "logout"); code != cli.ExitFailed {
		t.Errorf("logout again: %d", code)
	}
}

func TestWhatSigningInIsRefusedWith(t *testing.T) {
	t.Parallel()
	for refusal, says := range map[string]string{"access_denied": "refused on the page", "expired_token": "in time", "invalid_client": "invalid_client"} {
		s, h := openIssuer(t), home{dir: t.TempDir()}
		s.refuses = refusal
		if code, _, errs := h.run(t, "login", s.URL); code != cli.ExitUnauthorized || !strings.Contains(errs, says) {
			t.Errorf("%s: %d %s", refusal, code, errs)
		}
		if _, err := os.Stat(h.file()); err == nil {
			t.Errorf("%s left credentials", refusal)
		}
	}
	h := home{dir: t.TempDir()}
	if code, _, errs := h.run(t, "login", "http://127.0.0.1:1"); code != cli.ExitFailed || !strings.Contains(errs, "does not answer") {
		t.Errorf("nobody there: %d %s", code, errs)
	}
	if code, _, errs := h.run(t, "login", "not a url"); code != cli.ExitUsage {
		t.Errorf("no address: %d %s", code, errs)
	}
	// A family that has ended is not worth another try.
	s := openIssuer(t)
	past := time.Now().Add(-time.Hour)
	text, err := json.Marshal(map[string]any{"api_url": s.URL, "access_token": "slp_x", "refresh_token": "slr_stolen", "expires_at": past})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(h.dir, "named.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := h.run(t, "whoami", "--credentials", file); code != cli.ExitUnauthorized || !strings.Contains(errs, "slipway login") {
		t.Errorf("a family that has ended: %d %s", code, errs)
	}
}
