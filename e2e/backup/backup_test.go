// Package backup_test loses a platform wholly and brings it back from a backup, by
// the commands that an operator would use.
package backup_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
	"github.com/slipway-paas/slipway/libs/config"
	"github.com/slipway-paas/slipway/services/standalone"
)

const (
	patience = 60 * time.Second
	secret   = "planted-7c1e0c5f"
	apps     = "/api/deploy/apps"
)

func TestALostPlatformComesBackFromItsBackup(t *testing.T) {
	t.Parallel()
	s, err := stack.Standalone(t.Context(), stack.Options{Rollout: stack.Quick()})
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
	p := &platform{t: t, s: s, data: filepath.Join(s.Dir, "data")}
	image, err := s.Push(t.Context(), "e2e/backup:latest", "one")
	if err != nil {
		t.Fatal(err)
	}
	kept := p.deploy("kept", image)
	p.waitFor(kept, "running")
	stopped := p.deploy("stopped", image)
	p.waitFor(stopped, "running")
	p.call(http.StatusOK, http.MethodPost, apps+"/"+stopped+"/stop", nil)
	p.waitFor(stopped, "stopped")
	p.serves("kept")
	token, story := s.Token, p.story(kept)

	passphrase := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(passphrase, []byte("a long enough sentence\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "slipway.backup")
	begun := time.Now()
	p.command("slipway", "admin", "backup", file, "--data-dir", p.data, "--passphrase-file", passphrase)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the backup is %v, %v", info, err)
	} else {
		t.Logf("backed up in %s, %d KiB", time.Since(begun).Round(time.Millisecond), info.Size()>>10)
	}
	if err := onlySealed(file); err != nil {
		t.Error(err)
	}
	late := p.deploy("late", image) // after the backup: it is lost with the platform

	t.Log("the machine is lost: containers, log, database, keys, all")
	if err := s.Process(stack.Daemon).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.command("slipwayd", "purge", "--data-dir", p.data)
	if _, err := os.Stat(p.data); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the data directory is still there: %v", err)
	}

	t.Log("it comes back")
	begun = time.Now()
	p.command("slipway", "admin", "restore", file, "--data-dir", p.data, "--passphrase-file", passphrase)
	restored := time.Since(begun)
	p.restoredSettings()
	begun = time.Now()
	if err := s.Restart(stack.Daemon); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Token != token {
		t.Error("the credentials are others than before")
	}
	p.serves("kept")
	t.Logf("restored in %s, serving %s after the start", restored.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
	p.waitFor(kept, "running")
	p.waitFor(stopped, "stopped")
	after := p.story(kept)
	if len(after) < len(story) {
		t.Fatalf("its story had %d events and has %d", len(story), len(after))
	}
	if diff := cmp.Diff(story, after[:len(story)]); diff != "" {
		t.Errorf("its story is another:\n%s", diff)
	}
	p.call(http.StatusNotFound, http.MethodGet, apps+"/"+late, nil)

	t.Log("and takes commands")
	p.call(http.StatusOK, http.MethodPost, apps+"/"+stopped+"/restart", nil)
	p.waitFor(stopped, "running")
	p.serves("stopped")
	again := p.deploy("late", image)
	p.waitFor(again, "running")
	p.serves("late")
}

// onlySealed looks for what must not be readable in an encrypted backup.
func onlySealed(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for _, clear := range []string{secret, "access_token", "-----BEGIN", "manifest.json"} {
		if strings.Contains(string(content), clear) {
			return fmt.Errorf("the backup holds %q in clear", clear)
		}
	}
	return nil
}

type platform struct {
	t    *testing.T
	s    *stack.Stack
	data string
}

// command runs a program of the platform's to its end.
func (p *platform) command(name string, args ...string) {
	p.t.Helper()
	bin := filepath.Dir(p.s.Process(stack.Daemon).Program())
	out, err := exec.CommandContext(p.t.Context(), filepath.Join(bin, name), args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	p.t.Logf("%s %s", name, strings.TrimSpace(string(out)))
}

func (p *platform) call(status int, method, path string, body any) client.Answer {
	p.t.Helper()
	answer, err := p.s.Client().Do(p.t.Context(), method, path, body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	if answer.Status != status {
		p.t.Fatalf("%s %s: got %s, want %d", method, path, answer, status)
	}
	return answer
}

func (p *platform) deploy(subdomain, image string) (id string) {
	p.t.Helper()
	answer := p.call(http.StatusCreated, http.MethodPost, apps, map[string]any{
		"image": image, "port": 8080, "subdomain": subdomain, "tier": "buddo-starter", "env_vars": map[string]string{"PLANTED": secret},
	})
	id, _ = answer.Object("deployment")["id"].(string)
	return id
}

// serves waits until the app answers, with its environment.
func (p *platform) serves(subdomain string) {
	p.t.Helper()
	p.eventually(subdomain+" serves with its environment", func(ctx context.Context) (bool, string, error) {
		answer, err := client.Visit(ctx, p.s.Edge, p.s.Host(subdomain), http.MethodGet, "/env?name=PLANTED", nil)
		if err != nil {
			return false, err.Error(), nil
		}
		return answer.Status == http.StatusOK && answer.JSON()["value"] == secret, answer.String(), nil
	})
}

func (p *platform) waitFor(id, status string) {
	p.t.Helper()
	p.eventually(id+" is "+status, func(ctx context.Context) (bool, string, error) {
		answer, err := p.s.Client().Do(ctx, http.MethodGet, apps+"/"+id+"/status", nil)
		if err != nil {
			return false, err.Error(), nil
		}
		return answer.JSON()["status"] == status, answer.String(), nil
	})
}

// story is what the audit log tells of a deployment.
func (p *platform) story(id string) []map[string]any {
	p.t.Helper()
	return p.call(http.StatusOK, http.MethodGet, apps+"/"+id+"/logs", nil).List("logs")
}

func (p *platform) eventually(what string, check func(context.Context) (bool, string, error)) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := client.Poll(ctx, check); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

// restoredSettings makes sure that the daemon could be started from what the restore
// left, and would be the same.
func (p *platform) restoredSettings() {
	p.t.Helper()
	c := standalone.DefaultConfig()
	if err := config.Load("slipwayd", []string{"--config", filepath.Join(p.data, "restored.yaml")}, nil, &c); err != nil {
		p.t.Fatalf("the restored settings: %v", err)
	}
	got := []string{c.DataDir, "http://" + c.Listen, c.BaseDomain, c.Registry, "nats://" + c.NATS, c.Rollout.Drain.String()}
	want := []string{p.data, p.s.API, p.s.BaseDomain, p.s.Registry, p.s.NATS, "1s"}
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Errorf("the restored settings:\n%s", diff)
	}
}
