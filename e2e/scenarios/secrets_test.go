package scenarios

import (
	"bytes"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestSecretsReachTheAppAndNothingElse(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{Env: []string{"SLIPWAY_LOG_LEVEL=debug"}})
	secret := "planted-" + rand.Text()
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080, "env_vars": map[string]string{"PLANTED": secret}})
	if got := a.visit("/env?name=PLANTED").JSON()["value"]; got != secret {
		t.Fatalf("the app sees %v", got)
	}
	for _, path := range []string{"", "/logs", "/status"} {
		if answer := call(t, a.c, "GET", a.path(path), nil); strings.Contains(string(answer.Body), secret) {
			t.Errorf("GET %s tells the secret", a.path(path))
		}
	}
	follow(t, a, "", func(e client.Event) bool {
		if strings.Contains(e.Data, secret) {
			t.Errorf("the event %s tells the secret", e.Type)
		}
		return e.Type == "DeploymentRunning"
	})
	a.do("restart") // a second release has it too
	a.wait("running")
	searchFor(t, s, []byte(secret), s.Token)
	a.destroy()
	a.wait("destroyed")
	a.gone()
	if err := s.Process(stack.Daemon).Stop(t.Context()); err != nil {
		t.Error(err)
	}
	searchFor(t, s, []byte(secret), s.Token)
}

// searchFor looks for the secrets in every file of the platform but those that
// Podman needs to run the container, and the credentials file for the token.
func searchFor(t *testing.T, s *stack.Stack, secret []byte, token string) {
	t.Helper()
	files := filesOf(t, s)
	for path, content := range files {
		if bytes.Contains(content, secret) {
			t.Errorf("%s holds the planted secret", path)
		}
		if filepath.Base(path) != "credentials.json" && bytes.Contains(content, []byte(token)) {
			t.Errorf("%s holds the access token", path)
		}
	}
	if len(files) < 10 {
		t.Errorf("only %d files were looked at", len(files))
	}
}
