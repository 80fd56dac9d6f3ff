package tiltfile

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/appimage"
	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// patience is for each resource to become ready, and for the app to run.
const patience = 90 * time.Second

// What `tilt up` does, done by hand: every resource after those it needs, and then an
// image becomes a live address. It is slow because every service is a process.
func TestWhatTheTiltfileSaysStartsThePlatform(t *testing.T) {
	t.Parallel()
	root := repository(t)
	// Short, for the database's socket is below it, and open to the database's own user.
	dir, err := os.MkdirTemp("", "tilt-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clean(t, dir) })
	for _, link := range [][2]string{{binaries(t, root), "bin"}, {filepath.Join(root, "deployments"), "deployments"}} {
		if err := os.Symlink(link[0], filepath.Join(dir, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	resources := read(t, root, dir)
	ready := map[string]bool{}
	for _, r := range resources {
		for _, need := range r.Needs {
			if !ready[need] {
				t.Fatalf("%s needs %s, which the Tiltfile names later or not at all", r.Name, need)
			}
		}
		serve(t, dir, r)
		ready[r.Name] = true
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var images appimage.Builder
	if err := images.Push(ctx, "127.0.0.1:5055/e2e/tilt:1", "tilt"); err != nil {
		t.Fatal(err)
	}
	c := operator(t, filepath.Join(dir, ".slipway-tilt", "credentials.json"))
	answer, err := c.Do(ctx, http.MethodPost, "/api/deploy/apps", map[string]any{
		"subdomain": "tilt", "image": "127.0.0.1:5055/e2e/tilt:1", "tier": "buddo-starter", "port": 8080,
	})
	if err != nil || answer.Status != http.StatusCreated {
		t.Fatalf("create: %v, %v", answer, err)
	}
	id, _ := answer.Object("deployment")["id"].(string)
	t.Cleanup(func() { destroy(t, c, id) })
	wait(t, ctx, func(ctx context.Context) (bool, string, error) {
		page, err := client.Visit(ctx, "http://127.0.0.1:8000", "tilt.apps.localhost", http.MethodGet, "/", nil)
		return err == nil && page.Status == http.StatusOK, fmt.Sprint(page, err), nil
	})
}

// clean is what make clean does once Tilt is down.
func clean(t *testing.T, dir string) {
	command := exec.Command("deployments/standalone/clean.sh", ".slipway-tilt")
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("clean: %v\n%s", err, output)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// destroy leaves no container of the app behind.
func destroy(t *testing.T, c *client.Client, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if answer, err := c.Do(ctx, http.MethodDelete, "/api/deploy/apps/"+id, nil); err != nil || answer.Status != http.StatusOK {
		t.Errorf("destroy: %v, %v", answer, err)
	}
	err := client.Poll(ctx, func(ctx context.Context) (bool, string, error) {
		answer, err := c.Do(ctx, http.MethodGet, "/api/deploy/apps/"+id, nil)
		return answer.Object("deployment")["status"] == "destroyed", answer.String(), err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestEveryServiceIsAResourceThatIsRebuiltOnChange(t *testing.T) {
	t.Parallel()
	root := repository(t)
	resources := read(t, root, root)
	commands, err := filepath.Glob(filepath.Join(root, "services", "*", "cmd", "slipway-*"))
	if err != nil || len(commands) == 0 {
		t.Fatalf("no services in %s: %v", root, err)
	}
	for _, command := range commands {
		name := strings.TrimPrefix(filepath.Base(command), "slipway-")
		i := slices.IndexFunc(resources, func(r Resource) bool { return r.Name == name })
		if i < 0 {
			if name != "sample" { // the sample app is what users bring, no service
				t.Errorf("the Tiltfile has no resource %s", name)
			}
			continue
		}
		r := resources[i]
		if r.Serve == "" || r.ReadyPort == 0 || len(r.Needs) == 0 {
			t.Errorf("%s lacks what serves it, its readiness probe or what it needs: %+v", name, r)
		}
		if !slices.Contains(r.Deps, "services/"+name) {
			t.Errorf("%s is not rebuilt when services/%s changes: %v", name, name, r.Deps)
		}
		built := regexp.MustCompile(`\./\S+$`).FindString(r.Cmd)
		if filepath.Join(root, built) != command {
			t.Errorf("%s is built from %q", name, built)
		}
		for _, dep := range r.Deps {
			if _, err := os.Stat(filepath.Join(root, dep)); err != nil {
				t.Errorf("%s depends on what is not there: %v", name, err)
			}
		}
	}
}

func repository(t *testing.T) string {
	t.Helper()
	root, err := stack.Repository()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func binaries(t *testing.T, root string) string {
	t.Helper()
	bin := os.Getenv("SLIPWAY_BIN")
	if bin == "" {
		bin = filepath.Join(root, "bin")
	}
	if _, err := os.Stat(filepath.Join(bin, "slipwayd")); err != nil {
		t.Fatalf("the platform is not built: %v; run make build", err)
	}
	return bin
}

func read(t *testing.T, root, dir string) []Resource {
	t.Helper()
	resources, err := Read(filepath.Join(root, "Tiltfile"), dir)
	if err != nil {
		t.Fatal(err)
	}
	return resources
}

// serve starts the resource, and returns when its probe answers. What it would build
// is built.
func serve(t *testing.T, dir string, r Resource) {
	t.Helper()
	if r.Serve == "" {
		return
	}
	path := filepath.Join(dir, r.Name+".log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("sh", "-c", "exec "+r.Serve)
	command.Dir, command.Stdout, command.Stderr = dir, log, log
	// Containers' monitors may hold the output open; do not wait for them.
	command.WaitDelay = time.Second
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		if err := command.Process.Signal(syscall.SIGINT); err != nil {
			t.Errorf("stop %s: %v", r.Name, err)
		}
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("%s did not stop", r.Name)
			_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		}
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(path)
			t.Logf("%s said:\n%s", r.Name, text[max(0, len(text)-4<<10):])
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	wait(t, ctx, func(ctx context.Context) (bool, string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", r.ReadyPort, r.ReadyPath), nil)
		if err != nil {
			return false, "", err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, r.Name + ": " + err.Error(), nil
		}
		return answer.StatusCode == http.StatusOK, r.Name + ": " + answer.Status, answer.Body.Close()
	})
}

func wait(t *testing.T, ctx context.Context, check func(context.Context) (bool, string, error)) {
	t.Helper()
	if err := client.Poll(ctx, check); err != nil {
		t.Fatal(err)
	}
}

func operator(t *testing.T, path string) *client.Client {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var credentials struct {
		APIURL      string `json:"api_url"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(text, &credentials); err != nil {
		t.Fatal(err)
	}
	return &client.Client{API: credentials.APIURL, Token: credentials.AccessToken}
}
