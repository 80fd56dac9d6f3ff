package scenarios

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// The master key is rotated under a platform of several processes that works on, and
// what was sealed before is there after all of them have started again.
func TestTheMasterKeyIsRotatedWhileThePlatformRuns(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Processes, stack.Options{})
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080, "env_vars": map[string]string{"SECRET": "hunter2"}})
	p := newPerson(t, s)
	once := &client.Client{API: s.API, Token: p.Token, Header: map[string]string{"Idempotency-Key": rand.Text()}}
	key := map[string]any{"name": "ci", "scopes": []string{"deploy:read"}}
	made := expect(t, once, http.StatusCreated, http.MethodPost, "/api/v1/api-keys", key)
	before, err := os.ReadFile(s.MasterKey())
	if err != nil {
		t.Fatal(err)
	}
	rotate := func() string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), s.Binary("slipway"), "admin", "keys", "rotate")
		cmd.Dir, cmd.Env = t.TempDir(), []string{"HOME=" + t.TempDir(), "SLIPWAY_API_URL=" + s.API, "SLIPWAY_TOKEN=" + s.Token}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("rotate: %v: %s", err, out)
		}
		return string(out)
	}
	works := func(when string) {
		t.Helper()
		login := map[string]any{"email": p.email, "password": personsPassword}
		expect(t, anonymous(s), http.StatusOK, http.MethodPost, "/api/v1/auth/login", login)
		if again := expect(t, once, http.StatusCreated, http.MethodPost, "/api/v1/api-keys", key); string(again.Body) != string(made.Body) {
			t.Errorf("%s the kept answer is another", when)
		}
		a.do("restart")
		a.wait("running")
		if got := a.visit("/env?name=SECRET").JSON()["value"]; got != "hunter2" {
			t.Errorf("%s the app sees %v", when, got)
		}
	}
	if said := rotate(); !strings.Contains(said, "is dropped") {
		t.Errorf("it said %s", said)
	}
	works("after the rotation")
	rotate()
	newPerson(t, s)
	unlocking := []string{"slipway-scheduler", "slipway-identity", "slipway-gateway"}
	for _, name := range unlocking {
		if err := s.Process(name).Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	now, err := os.ReadFile(s.MasterKey())
	if err != nil {
		t.Fatal(err)
	}
	t.Log("with the old master key nothing starts")
	if err := os.WriteFile(s.MasterKey(), before, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range unlocking {
		if err := s.Restart(name); err != nil {
			t.Fatal(err)
		}
		said := s.Process(name)
		eventually(t, name+" refuses", func(context.Context) (bool, string, error) {
			ended := false
			select {
			case <-said.Ended():
				ended = true
			default:
			}
			return ended && strings.Contains(said.Tail(), "the master key is lost"), fmt.Sprintf("ended %v: %s", ended, said.Tail()), nil
		})
	}
	t.Log("with the new one everything does")
	if err := os.WriteFile(s.MasterKey(), now, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range unlocking {
		if err := s.Restart(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	works("after all started again")
}

func TestAMasterKeyFromTheEnvironmentIsInNoFile(t *testing.T) {
	t.Parallel()
	given := base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text())[:32])
	s := own(t, stack.Standalone, stack.Options{Env: []string{"SLIPWAY_MASTER_KEYS=" + given}})
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080, "env_vars": map[string]string{"SECRET": "hunter2"}})
	if got := a.visit("/env?name=SECRET").JSON()["value"]; got != "hunter2" {
		t.Errorf("the app sees %v", got)
	}
	answer := call(t, s.Client(), http.MethodPost, "/api/v1/admin/keys/rotate", nil)
	if isProblem(t, answer); answer.Status != http.StatusUnprocessableEntity || !strings.Contains(string(answer.Body), "SLIPWAY_MASTER_KEYS") {
		t.Errorf("without a second key it was answered with %s", answer)
	}
	if _, err := os.Stat(s.MasterKey()); !os.IsNotExist(err) {
		t.Errorf("there is a file with a master key: %v", err)
	}
	planted{"master key": given}.inFiles(t, s, 1)
}
