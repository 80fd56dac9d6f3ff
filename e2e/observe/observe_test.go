// Package observe looks at the platform from outside as its operator does: the
// trace of a request, the log lines of that trace, and the figures of a scrape.
package observe

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/otlp"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// patience is how long anything may take.
const patience = 60 * time.Second

// TestMain takes the variables away that would make platforms export to the
// collector of whoever runs the tests.
func TestMain(m *testing.M) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OTEL_") {
			if err := os.Unsetenv(name); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	os.Exit(m.Run())
}

type start func(context.Context, stack.Options) (*stack.Stack, error)

// platform starts one for this test alone.
func platform(t *testing.T, start start, env ...string) *stack.Stack {
	t.Helper()
	s, err := start(t.Context(), stack.Options{Rollout: stack.Quick(), NodeMemoryMB: 16 << 10, NodeCPUMillicores: 16_000, Env: env})
	if err != nil {
		t.Fatalf("start the platform: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Tails())
		}
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("take the platform away: %v", err)
		}
	})
	return s
}

// receiver starts one that ends with the test.
func receiver(t *testing.T) *otlp.Receiver {
	t.Helper()
	r, err := otlp.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// app is one deployment.
type app struct {
	t  *testing.T
	s  *stack.Stack
	id string
}

// deploy asks for a deployment with an environment, without waiting for it.
func deploy(t *testing.T, s *stack.Stack, subdomain string) *app {
	t.Helper()
	image, err := s.Push(t.Context(), "e2e/"+subdomain+":latest", "one")
	if err != nil {
		t.Fatalf("push an image: %v", err)
	}
	a := &app{t: t, s: s}
	answer := a.ask(http.StatusCreated, http.MethodPost, "/api/deploy/apps", map[string]any{
		"image": image, "port": 8080, "subdomain": subdomain, "tier": "buddo-starter", "env_vars": map[string]string{"GREETING": "hello"},
	})
	a.id, _ = answer.Object("deployment")["id"].(string)
	if a.id == "" {
		t.Fatalf("no id in %s", answer)
	}
	return a
}

func (a *app) path(more string) string { return "/api/deploy/apps/" + a.id + more }

func (a *app) ask(status int, method, path string, body any) client.Answer {
	a.t.Helper()
	answer, err := a.s.Client().Do(a.t.Context(), method, path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	if answer.Status != status {
		a.t.Fatalf("%s %s answers %s, want %d", method, path, answer, status)
	}
	return answer
}

// wait polls until the deployment has the status.
func (a *app) wait(status string) {
	a.t.Helper()
	eventually(a.t, "status "+status, func(ctx context.Context) (bool, string, error) {
		answer, err := a.s.Client().Do(ctx, http.MethodGet, a.path("/status"), nil)
		if err != nil {
			return false, err.Error(), nil
		}
		return answer.JSON()["status"] == status, answer.String(), nil
	})
}

// eventually polls until check is done, and ends the test with what is missing.
func eventually(t *testing.T, what string, check func(context.Context) (bool, string, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := client.Poll(ctx, check); err != nil {
		t.Fatalf("waited for: %s: %v", what, err)
	}
}

// logs is everything that the platform's processes have printed.
func logs(t *testing.T, s *stack.Stack) string {
	t.Helper()
	var all strings.Builder
	for _, p := range s.Processes() {
		content, err := os.ReadFile(p.LogFile)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(content)
	}
	return all.String()
}
