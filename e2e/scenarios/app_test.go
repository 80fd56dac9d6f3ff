package scenarios

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/podman"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// patience is how long anything may take that is not a deadline of the platform's.
const patience = 60 * time.Second

// app is one deployment under test.
type app struct {
	t         *testing.T
	s         *stack.Stack
	c         *client.Client
	id        string
	subdomain string
	host      string
}

// name is a subdomain of the test's own.
func name(t *testing.T, more ...string) string {
	sum := sha256.Sum256([]byte(t.Name() + strings.Join(more, "-")))
	return "e2e-" + hex.EncodeToString(sum[:5])
}

// push pushes the app's image under the test's own name.
func push(t *testing.T, s *stack.Stack, tag, version string, env ...string) string {
	t.Helper()
	reference, err := s.Push(t.Context(), "e2e/"+name(t)+":"+tag, version, env...)
	if err != nil {
		t.Fatalf("push an image: %v", err)
	}
	return reference
}

// call calls the API; a failure to get an answer at all ends the test.
func call(t *testing.T, c *client.Client, method, path string, body any) client.Answer {
	t.Helper()
	answer, err := c.Do(t.Context(), method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

// expect calls the API and ends the test when the status is another.
func expect(t *testing.T, c *client.Client, status int, method, path string, body any) client.Answer {
	t.Helper()
	answer := call(t, c, method, path, body)
	if answer.Status != status {
		t.Fatalf("%s %s: got %s, want %d", method, path, answer, status)
	}
	return answer
}

// create asks for a deployment and makes sure that it goes with the test.
func create(t *testing.T, s *stack.Stack, body map[string]any) *app {
	t.Helper()
	c := s.Client()
	if body["subdomain"] == nil {
		body["subdomain"] = name(t)
	}
	if body["tier"] == nil {
		body["tier"] = "buddo-starter"
	}
	answer := expect(t, c, http.StatusCreated, http.MethodPost, "/api/deploy/apps", body)
	d := answer.Object("deployment")
	id, _ := d["id"].(string)
	if id == "" {
		t.Fatalf("no id in %s", answer)
	}
	subdomain, _ := body["subdomain"].(string)
	a := &app{t: t, s: s, c: c, id: id, subdomain: subdomain, host: s.Host(subdomain)}
	t.Cleanup(func() {
		if t.Failed() {
			a.t.Log(a.story())
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		// A story may have destroyed it itself, or its platform may be down.
		_, _ = c.Do(ctx, http.MethodDelete, "/api/deploy/apps/"+id, nil)
	})
	return a
}

// deploy creates a deployment and waits until it runs.
func deploy(t *testing.T, s *stack.Stack, body map[string]any) *app {
	t.Helper()
	a := create(t, s, body)
	a.wait("running")
	return a
}

func (a *app) path(more string) string { return "/api/deploy/apps/" + a.id + more }

func (a *app) get() map[string]any {
	a.t.Helper()
	return expect(a.t, a.c, http.StatusOK, http.MethodGet, a.path(""), nil).Object("deployment")
}

func (a *app) logs() []map[string]any {
	a.t.Helper()
	return expect(a.t, a.c, http.StatusOK, http.MethodGet, a.path("/logs"), nil).List("logs")
}

// wait polls the status endpoint until the status is the wanted one.
func (a *app) wait(status string) {
	a.t.Helper()
	a.waitFor("status "+status, func(d map[string]any) bool { return d["status"] == status })
}

// waitFor polls the status endpoint until it says what the test waits for.
func (a *app) waitFor(what string, check func(map[string]any) bool) {
	a.t.Helper()
	eventually(a.t, a.id+": "+what, func(ctx context.Context) (bool, string, error) {
		answer, err := a.c.Do(ctx, http.MethodGet, a.path("/status"), nil)
		if err != nil {
			return false, err.Error(), nil
		}
		return answer.Status == http.StatusOK && check(answer.JSON()), answer.String(), nil
	})
}

// do asks the platform for an action, e.g. /restart.
func (a *app) do(action string) map[string]any {
	a.t.Helper()
	return expect(a.t, a.c, http.StatusOK, http.MethodPost, a.path("/"+action), nil).Object("deployment")
}

func (a *app) destroy() {
	a.t.Helper()
	answer := expect(a.t, a.c, http.StatusOK, http.MethodDelete, a.path(""), nil)
	if m := answer.JSON(); m["message"] != "Deployment destroyed" || m["id"] != a.id {
		a.t.Fatalf("destroy answered %s", answer)
	}
}

// visit asks the edge for a path of the app.
func (a *app) visit(path string, headers ...string) client.Answer {
	a.t.Helper()
	answer, err := client.Visit(a.t.Context(), a.s.Edge, a.host, http.MethodGet, path, nil, headers...)
	if err != nil {
		a.t.Fatalf("visit %s: %v", a.host, err)
	}
	return answer
}

// serves waits until the edge gives this version's answer.
func (a *app) serves(version string) {
	a.t.Helper()
	eventually(a.t, a.host+" serves "+version, func(ctx context.Context) (bool, string, error) {
		answer, err := client.Visit(ctx, a.s.Edge, a.host, http.MethodGet, "/", nil)
		if err != nil {
			return false, err.Error(), nil
		}
		return answer.Status == http.StatusOK && answer.JSON()["version"] == version, answer.String(), nil
	})
}

// page waits until the edge answers with this status, as it does for all visitors
// at about the same moment.
func (a *app) page(status int) client.Answer {
	a.t.Helper()
	var last client.Answer
	eventually(a.t, fmt.Sprintf("%s answers %d", a.host, status), func(ctx context.Context) (bool, string, error) {
		answer, err := client.Visit(ctx, a.s.Edge, a.host, http.MethodGet, "/", nil)
		if err != nil {
			return false, err.Error(), nil
		}
		last = answer
		return answer.Status == status, answer.String(), nil
	})
	return last
}

// containers are the deployment's on any node, whatever their state.
func (a *app) containers() []podman.Container {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := containersOf(ctx, a.s, a.id)
	if err != nil {
		a.t.Fatal(err)
	}
	return list
}

func containersOf(ctx context.Context, s *stack.Stack, deployment string) ([]podman.Container, error) {
	var found []podman.Container
	for _, node := range s.Nodes() {
		list, err := node.Podman().Containers(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the containers of node %s: %w", node.ID, err)
		}
		for _, c := range list {
			if deployment == "" || c.Labels["slipway.deployment"] == deployment {
				found = append(found, c)
			}
		}
	}
	return found, nil
}

// gone waits until no container of the deployment is left.
func (a *app) gone() {
	a.t.Helper()
	eventually(a.t, "no container of "+a.id+" is left", func(ctx context.Context) (bool, string, error) {
		list, err := containersOf(ctx, a.s, a.id)
		return err == nil && len(list) == 0, fmt.Sprintf("%v %v", list, err), nil
	})
}

// types are the deployment's events so far, as the API tells them.
func (a *app) types() []string {
	var types []string
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	// The stream goes on for ever: what came until the time is up is enough.
	_ = a.c.Follow(ctx, a.path("/events"), "", func(e client.Event) bool {
		types = append(types, e.Type)
		return e.Type == "DeploymentDestroyed"
	})
	return types
}

// story is what to read when a test has failed.
func (a *app) story() string {
	var b bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, path := range []string{"", "/logs"} {
		answer, err := a.c.Do(ctx, http.MethodGet, a.path(path), nil)
		fmt.Fprintf(&b, "GET %s: %s %v\n", a.path(path), answer, err)
	}
	fmt.Fprintln(&b, "events:", strings.Join(a.types(), " "))
	return b.String()
}

// eventually polls until check is done, and ends the test with what is missing.
func eventually(t *testing.T, what string, check func(context.Context) (bool, string, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.Poll(ctx, check); err != nil {
		t.Fatalf("waited for: %s: %v", what, err)
	}
}

// inOrder reports whether the wanted words come in this order, others between them.
func inOrder(words []string, wanted ...string) bool {
	for _, w := range wanted {
		i := slices.Index(words, w)
		if i < 0 {
			return false
		}
		words = words[i+1:]
	}
	return true
}

// actions are "action status" of each entry.
func actions(logs []map[string]any) []string {
	list := make([]string, 0, len(logs))
	for _, entry := range logs {
		list = append(list, fmt.Sprint(entry["action"], " ", entry["status"]))
	}
	return list
}

// details are an entry's; an empty map for none.
func details(e map[string]any) map[string]any {
	d, _ := e["details"].(map[string]any)
	return d
}
