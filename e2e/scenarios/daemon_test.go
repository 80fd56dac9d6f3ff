package scenarios

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestWhatTheDaemonIsToldWronglyItRefusesInWords(t *testing.T) {
	t.Parallel()
	s := platform(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "slipway.yaml")
	if err := os.WriteFile(config, []byte("lisssten: 127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	used := strings.TrimPrefix(s.API, "http://")
	for what, wrong := range map[string]struct {
		args, env []string
		says      string
	}{
		"an unknown flag":        {args: []string{"--colour", "red"}, says: "colour"},
		"an unknown variable":    {env: []string{"SLIPWAY_COLOUR=red"}, says: "SLIPWAY_COLOUR"},
		"an unknown key":         {args: []string{"--config", config}, says: "lisssten"},
		"a missing file":         {args: []string{"--config", filepath.Join(dir, "none.yaml")}, says: "none.yaml"},
		"no address":             {args: []string{"--listen", "nowhere"}, says: "--listen"},
		"a port out of range":    {args: []string{"--edge-http", "127.0.0.1:70000"}, says: "--edge-http"},
		"no domain":              {args: []string{"--base-domain", "not a domain"}, says: "--base-domain"},
		"no database's URL":      {args: []string{"--database-url", "mysql://x"}, says: "--database-url"},
		"an address in use":      {args: []string{"--listen", used}, says: used},
		"another's directory":    {args: []string{"--data-dir", filepath.Join(s.Dir, "data")}, says: filepath.Join(s.Dir, "data")},
		"a word that is no flag": {args: []string{"start"}, says: "start"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		args := append([]string{"--data-dir", filepath.Join(dir, "data")}, wrong.args...)
		daemon := exec.CommandContext(ctx, s.Binary(stack.Daemon), args...)
		daemon.Dir = dir
		daemon.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SLIPWAY_") }), wrong.env...)
		out, err := daemon.CombinedOutput()
		cancel()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || ctx.Err() != nil && exit.ExitCode() < 0 {
			t.Errorf("%s: it did not refuse: %v\n%s", what, err, out)
			continue
		}
		if !strings.Contains(string(out), wrong.says) {
			t.Errorf("%s: it says %s, without %q", what, out, wrong.says)
		}
	}
}

func TestOfManyWhoWantOneSubdomainOneGetsIt(t *testing.T) {
	t.Parallel()
	s := platform(t)
	c := s.Client()
	// One that can run: a deployment that fails gives its name back, to whoever asks next.
	image := push(t, s, "latest", "one")
	var mu sync.Mutex
	statuses := map[int]int{}
	var ids []string
	var wait sync.WaitGroup
	for range 12 {
		wait.Go(func() {
			answer, err := c.Do(t.Context(), http.MethodPost, "/api/deploy/apps",
				map[string]any{"subdomain": name(t), "image": image, "port": 8080, "tier": "buddo-starter"})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			statuses[answer.Status]++
			if id, ok := answer.Object("deployment")["id"].(string); ok {
				ids = append(ids, id)
			}
		})
	}
	wait.Wait()
	if statuses[http.StatusCreated] != 1 || statuses[http.StatusUnprocessableEntity] != 11 {
		t.Errorf("the answers are %v, want one 201 and eleven 422", statuses)
	}
	for _, id := range ids {
		expect(t, c, http.StatusOK, http.MethodDelete, "/api/deploy/apps/"+id, nil)
	}
}
