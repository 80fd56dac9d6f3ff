package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-paas/slipway/services/cli"
)

const (
	token  = "slp_test"
	live   = "550e8400-e29b-41d4-a716-446655440000"
	former = "550e8400-e29b-41d4-a716-446655440001"
)

// platform is an API that answers what a test tells it to.
type platform struct {
	*httptest.Server
	mu        sync.Mutex
	created   map[string]any
	status    string
	reason    string
	events    []string
	resumed   []string
	cutAfter  int
	destroyed string
}

func deployment(id, status, reason string) map[string]any {
	d := map[string]any{
		"id": id, "app_id": "a", "deploy_tier_id": "t", "container_name": "hello-1", "container_image": "ghcr.io/a/b:1", "host_server": nil,
		"subdomain": "hello", "custom_domain": nil, "status": status, "status_reason": nil, "health_status": "healthy", "last_health_check": nil,
		"billing_status": "active", "memory_limit_mb": 256, "cpu_limit_millicores": 250, "inserted_at": "2026-05-21T10:00:00Z", "deployed_at": nil, "stopped_at": nil,
	}
	if reason != "" {
		d["status_reason"] = reason
	}
	return d
}

func event(sequence int, kind, data string) string {
	return fmt.Sprintf("id: %d\nevent: %s\ndata: {\"specversion\":\"1.0\",\"sequence\":%d,\"type\":%q,\"time\":\"2026-05-21T10:00:00Z\",\"data\":%s}\n\n", sequence, kind, sequence, kind, data)
}

func open(t *testing.T) *platform {
	t.Helper()
	p := &platform{status: "running"}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, code int, v any) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	refuse := func(w http.ResponseWriter, code int, name, message string, fields ...map[string]string) {
		answer(w, code, map[string]any{"status": code, "code": name, "message": message, "fields": fields})
	}
	mux.HandleFunc("POST /api/deploy/apps", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		_ = json.NewDecoder(r.Body).Decode(&p.created)
		if p.created["tier"] == "gold" {
			refuse(w, 422, "validation_failed", "two fields", map[string]string{"field": "tier", "message": "is unknown"}, map[string]string{"field": "port", "message": "must be 1-65535"})
			return
		}
		answer(w, 201, map[string]any{"deployment": deployment(live, "pending", "")})
	})
	mux.HandleFunc("GET /api/deploy/apps", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"deployments": []any{deployment(former, "destroyed", ""), deployment(live, p.status, p.reason)}})
	})
	mux.HandleFunc("GET /api/deploy/apps/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != live {
			refuse(w, 404, "not_found", "Deployment not found.")
			return
		}
		answer(w, 200, map[string]any{"deployment": deployment(live, p.status, p.reason)})
	})
	mux.HandleFunc("GET /api/deploy/apps/{id}/logs", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"logs": []any{
			map[string]any{"id": "1", "action": "create", "status": "completed", "initiated_by": "a", "inserted_at": "2026-05-21T10:00:00Z", "details": nil},
			map[string]any{"id": "2", "action": "deploy", "status": "failed", "initiated_by": nil, "inserted_at": "2026-05-21T10:00:00Z", "details": map[string]any{"reason": "it \x1b[31mcrashed"}},
		}})
	})
	mux.HandleFunc("DELETE /api/deploy/apps/{id}", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.destroyed = r.PathValue("id")
		answer(w, 200, map[string]any{"message": "Deployment destroyed", "id": p.destroyed})
	})
	mux.HandleFunc("GET /api/deploy/apps/{id}/events", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		after := r.Header.Get("Last-Event-ID")
		p.resumed = append(p.resumed, after)
		first := len(p.resumed) == 1
		p.mu.Unlock()
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "retry: 1000\n\n")
		for i, e := range p.events {
			if first && p.cutAfter > 0 && i == p.cutAfter {
				return
			}
			var sequence int
			_, _ = fmt.Sscanf(e, "id: %d", &sequence)
			if after == "" || fmt.Sprint(sequence) > after {
				_, _ = io.WriteString(w, e)
			}
		}
		_, _ = io.WriteString(w, ": caught up\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			refuse(w, 401, "unauthorized", "The access token is not valid.")
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

type result struct {
	code        int
	out, errors string
}

func (p *platform) slipway(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, map[string]string{"SLIPWAY_API_URL": p.URL, "SLIPWAY_TOKEN": token, "SLIPWAY_APP_URL": "http://{subdomain}.apps.localhost:8000"}, args...)
}

func run(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	code := cli.Run(ctx, args, cli.Env{
		Version: "1.2.3", Getenv: func(name string) string { return env[name] }, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
	})
	return result{code, out.String(), errs.String()}
}

func (r result) want(t *testing.T, code int, out string, errs ...string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.out, out) {
		t.Errorf("ended with %d and %q, want %d and %q; said %q", r.code, r.out, code, out, r.errors)
	}
	for _, e := range errs {
		if !strings.Contains(r.errors, e) {
			t.Errorf("said %q, want %q in it", r.errors, e)
		}
	}
}

func good() []string {
	return []string{
		event(3, "DeploymentRequested", `{"subdomain":"hello"}`), event(4, "DeploymentScheduled", `{}`),
		event(5, "ContainerStarted", `{"attempt":1}`), event(7, "DeploymentRunning", `{}`),
	}
}

func TestDeployWaitsUntilItRunsAndSaysWhere(t *testing.T) {
	t.Parallel()
	p := open(t)
	p.events, p.cutAfter = good(), 2
	p.slipway(t, "deploy", "ghcr.io/a/b:1", "--subdomain", "hello", "--port", "8080", "--env", "A=b,c=d", "-e", "EMPTY=").
		want(t, 0, "hello is live at http://hello.apps.localhost:8000\n", "Asked for hello", "Started the container", "Running")
	want := map[string]any{"image": "ghcr.io/a/b:1", "subdomain": "hello", "tier": "buddo-starter", "port": 8080.0, "env_vars": map[string]any{"A": "b,c=d", "EMPTY": ""}}
	if diff := cmp.Diff(want, p.created); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"", "4"}, p.resumed); diff != "" {
		t.Errorf("the stream that broke was resumed wrongly: %s", diff)
	}
}

func TestDeployThatFailsEndsWithItsOwnCodeAndTheLastLines(t *testing.T) {
	t.Parallel()
	p := open(t)
	p.status, p.reason = "stopped", "The container exited with code 1."
	p.events = append(good()[:3], event(8, "ReleaseFailed", `{"reason":"it crashed","last_lines":["panic: \u001b[2Jno"]}`))
	r := p.slipway(t, "deploy", "ghcr.io/a/b:1", "--subdomain", "hello")
	r.want(t, 5, "", "Failed: it crashed", "| panic: \uFFFD[2Jno", "The container exited with code 1.", "slipway logs "+live)
	if r.out != "" {
		t.Errorf("a failure wrote %q to standard output", r.out)
	}
	asJSON := p.slipway(t, "deploy", "ghcr.io/a/b:1", "--subdomain", "hello", "--json")
	asJSON.want(t, 5, `"status":"stopped"`, `"exit_code":5`)
	if !json.Valid([]byte(asJSON.out)) || !json.Valid([]byte(asJSON.errors)) {
		t.Errorf("not JSON: %q and %q", asJSON.out, asJSON.errors)
	}
}

func TestDeployNeedNotWait(t *testing.T) {
	t.Parallel()
	p := open(t)
	p.slipway(t, "deploy", "i", "--subdomain", "hello", "--wait=false").want(t, 0, "hello is pending")
	p.slipway(t, "deploy", "i", "--subdomain", "hello", "--timeout", "50ms").want(t, 1, "", "goes on without us")
}

func TestEveryFieldAtFaultIsShown(t *testing.T) {
	t.Parallel()
	p := open(t)
	p.slipway(t, "deploy", "i", "--subdomain", "hello", "--tier", "gold").want(t, 1, "", "tier: is unknown", "port: must be 1-65535")
	p.slipway(t, "deploy", "i", "--subdomain", "hello", "--tier", "gold", "--json").want(t, 1, "", `"code":"validation_failed"`, `"field":"port"`)
}

func TestOneAndAllAreShown(t *testing.T) {
	t.Parallel()
	p := open(t)
	p.slipway(t, "status").want(t, 0, "hello      running")
	p.slipway(t, "status", "hello").want(t, 0, "http://hello.apps.localhost:8000")
	p.slipway(t, "status", live).want(t, 0, "256 MB")
	var all struct{ Deployments []map[string]any }
	if err := json.Unmarshal([]byte(p.slipway(t, "status", "--json").out), &all); err != nil || len(all.Deployments) != 2 {
		t.Errorf("got %v, %v", all, err)
	}
	var one struct {
		Deployment map[string]any
		Address    string
	}
	if err := json.Unmarshal([]byte(p.slipway(t, "status", "hello", "--json").out), &one); err != nil {
		t.Fatal(err)
	}
	if one.Deployment["id"] != live || one.Address != "http://hello.apps.localhost:8000" || one.Deployment["host_server"] != nil {
		t.Errorf("got %v: want the one that is not destroyed", one)
	}
	p.slipway(t, "status", "nobody").want(t, 4, "", `There is no deployment "nobody"`)
	p.slipway(t, "status", former).want(t, 4, "", "Deployment not found")
}

func TestTheAuditLogIsShown(t *testing.T) {
	t.Parallel()
	p := open(t)
	r := p.slipway(t, "logs", "hello")
	r.want(t, 0, "create")
	if strings.Contains(r.out, "\x1b") || !strings.Contains(r.out, "[31mcrashed") || !strings.Contains(r.out, "slipway") {
		t.Errorf("got %q", r.out)
	}
	p.slipway(t, "logs", "hello", "--json").want(t, 0, `{"logs":[{"id":"1"`)
}

func TestEventsAreShownToTheEndOrFollowed(t *testing.T) {
	t.Parallel()
	p := open(t)
	p.events = good()
	r := p.slipway(t, "events", "hello", "--json")
	r.want(t, 0, `"type":"DeploymentRunning"`)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if len(lines) != 4 {
		t.Errorf("%d lines, want one an event", len(lines))
	}
	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Errorf("%q is no JSON", l)
		}
	}
	r = p.slipway(t, "events", "hello", "--after", "5")
	r.want(t, 0, "DeploymentRunning")
	if strings.Contains(r.out, "DeploymentScheduled") {
		t.Errorf("events before --after are shown: %q", r.out)
	}

	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Run(ctx, []string{"events", "hello", "--follow"}, cli.Env{
			Getenv: func(n string) string { return map[string]string{"SLIPWAY_API_URL": p.URL, "SLIPWAY_TOKEN": token}[n] },
			Stdin:  strings.NewReader(""), Stdout: writer, Stderr: io.Discard,
		})
	}()
	var got strings.Builder
	buffer := make([]byte, 4096)
	for !strings.Contains(got.String(), "DeploymentRunning") {
		n, err := reader.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		got.Write(buffer[:n])
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("an interrupted follow ended with %d, want 0", code)
	}
}

func TestDestroyAsksFirst(t *testing.T) {
	t.Parallel()
	p := open(t)
	p.slipway(t, "destroy", "hello").want(t, 2, "", "--yes")
	if p.destroyed != "" {
		t.Error("it was destroyed without a word")
	}
	p.slipway(t, "destroy", "hello", "--yes").want(t, 0, "Deployment destroyed")
	if p.destroyed != live {
		t.Errorf("destroyed %s", p.destroyed)
	}
	p.slipway(t, "destroy", "hello", "-y", "--json").want(t, 0, `"id":"`+live+`"`)

	var out bytes.Buffer
	env := cli.Env{Getenv: func(n string) string { return map[string]string{"SLIPWAY_API_URL": p.URL, "SLIPWAY_TOKEN": token}[n] }, Interactive: true, Stdout: &out, Stderr: io.Discard}
	for answer, want := range map[string]int{"hello\n": 0, "y\n": 1, "": 1} {
		env.Stdin = strings.NewReader(answer)
		if code := cli.Run(t.Context(), []string{"destroy", "hello"}, env); code != want {
			t.Errorf("answered %q: %d, want %d", answer, code, want)
		}
	}
}

func TestWrongUsageIsTwo(t *testing.T) {
	t.Parallel()
	p := open(t)
	for _, args := range [][]string{
		{"deplyo"}, {"deploy"}, {"deploy", "i"}, {"deploy", "i", "--subdomain", "x", "--port", "y"}, {"status", "a", "b"}, {"status", "--nope"}, {"logs"},
		{"deploy", "i", "--subdomain", "x", "--env", "A"},
	} {
		r := p.slipway(t, args...)
		r.want(t, 2, "", "Error: ")
	}
	p.slipway(t, "version").want(t, 0, "slipway 1.2.3\n")
	p.slipway(t, "version", "--json").want(t, 0, `{"version":"1.2.3"}`)
	p.slipway(t).want(t, 0, "Exit codes")
	p.slipway(t, "completion", "bash").want(t, 0, "bash completion")
	p.slipway(t, "__complete", "logs", "").want(t, 0, "hello")
}

func TestWhoWeAreIsFound(t *testing.T) {
	t.Parallel()
	p := open(t)
	dir := t.TempDir()
	file := filepath.Join(dir, ".config", "slipway", "credentials.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(token string) {
		t.Helper()
		text := fmt.Sprintf(`{"api_url":%q,"operator_id":"o","access_token":%q,"app_url":"https://{subdomain}.example"}`, p.URL, token)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(token)
	for name, env := range map[string]map[string]string{
		"at home":            {"HOME": dir},
		"by variable":        {"SLIPWAY_CREDENTIALS": file},
		"variables go first": {"SLIPWAY_CREDENTIALS": file, "SLIPWAY_TOKEN": token},
	} {
		if r := run(t, env, "status", "hello"); r.code != 0 || !strings.Contains(r.out, "https://hello.example") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	run(t, nil, "status", "--credentials", file).want(t, 0, "hello")
	run(t, nil, "status").want(t, 3, "", "Nobody has signed in here", "SLIPWAY_TOKEN")
	run(t, nil, "status", "--credentials", filepath.Join(dir, "none")).want(t, 2, "", "cannot be read")
	run(t, map[string]string{"SLIPWAY_TOKEN": "t", "SLIPWAY_API_URL": "localhost"}, "status").want(t, 2, "", "no API address")
	run(t, map[string]string{"SLIPWAY_TOKEN": "wrong", "SLIPWAY_API_URL": p.URL}, "status").want(t, 3, "", "not valid", "SLIPWAY_TOKEN")
	run(t, map[string]string{"SLIPWAY_TOKEN": "t", "SLIPWAY_API_URL": "http://127.0.0.1:1"}, "status").want(t, 1, "", "does not answer", "make run")
	if err := os.WriteFile(file, []byte("no JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "status", "--credentials", file).want(t, 2, "", "no JSON")
}
