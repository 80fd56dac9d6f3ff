package scenarios

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestTheStoryOfAnAppInOneDaemon(t *testing.T) {
	t.Parallel()
	theStoryOfAnApp(t, platform(t))
}

func TestTheStoryOfAnAppWithEveryServiceItsOwnProcess(t *testing.T) {
	t.Parallel()
	theStoryOfAnApp(t, own(t, stack.Processes, stack.Options{}))
}

// theStoryOfAnApp is what the README promises, step by step.
func theStoryOfAnApp(t *testing.T, s *stack.Stack) {
	image := push(t, s, "latest", "one")
	a := create(t, s, map[string]any{"image": image, "port": 8080, "env_vars": map[string]string{"GREETING": "hello"}})

	d := a.get()
	for field, want := range map[string]any{
		"id": a.id, "subdomain": a.subdomain, "container_image": image, "billing_status": "active",
		"memory_limit_mb": float64(256), "cpu_limit_millicores": float64(250), "custom_domain": nil, "stopped_at": nil,
	} {
		if got, ok := d[field]; !ok || got != want {
			t.Errorf("the deployment's %s is %v (there: %v), want %v", field, got, ok, want)
		}
	}
	want := []string{
		"app_id", "billing_status", "container_image", "container_name", "cpu_limit_millicores", "custom_domain",
		"deploy_tier_id", "deployed_at", "health_status", "host_server", "id", "inserted_at", "last_health_check",
		"memory_limit_mb", "status", "status_reason", "stopped_at", "subdomain",
	}
	if got := keys(d); !slices.Equal(got, want) {
		t.Errorf("a deployment has the fields %v, want %v", got, want)
	}

	a.wait("running")
	if answer := a.visit("/"); answer.Status != http.StatusOK || answer.JSON()["version"] != "one" || answer.JSON()["host"] != a.host {
		t.Fatalf("running, but the edge answers %s", answer)
	}
	if got := a.visit("/env?name=GREETING").JSON()["value"]; got != "hello" {
		t.Errorf("the app sees GREETING as %v", got)
	}
	if got := a.visit("/env?name=PORT").JSON()["value"]; got != "8080" {
		t.Errorf("the app sees PORT as %v", got)
	}
	d = a.get()
	if d["health_status"] != "healthy" || d["deployed_at"] == nil || d["host_server"] == nil || d["status_reason"] != nil {
		t.Errorf("running, but the deployment is %v", d)
	}
	a.waitFor("a health check's time", func(d map[string]any) bool { return isTime(d["last_health_check"]) })

	// The first lines of the log, with who asked.
	logs := a.logs()
	if got := actions(logs); !slices.Equal(got, []string{"create completed", "deploy completed"}) {
		t.Fatalf("the log says %v", got)
	}
	if logs[0]["initiated_by"] != d["app_id"] || logs[1]["initiated_by"] != nil || !isTime(logs[0]["inserted_at"]) {
		t.Errorf("the log says %v", logs)
	}

	// A new image under the same tag, and a restart: the new version serves.
	push(t, s, "latest", "two")
	if got := a.do("restart")["status"]; got != "deploying" {
		t.Errorf("restart answers status %v, want deploying", got)
	}
	a.serves("two")
	a.wait("running")

	// Stop: a page that says so, the record stays, no container is left.
	a.do("stop")
	a.wait("stopped")
	page := a.page(http.StatusServiceUnavailable)
	if page.Header.Get("Retry-After") == "" || !strings.Contains(page.Header.Get("Content-Type"), "text/html") {
		t.Errorf("the page of a stopped app has the headers %v", page.Header)
	}
	if d = a.get(); d["stopped_at"] == nil || d["status"] != "stopped" {
		t.Errorf("stopped, but the deployment is %v", d)
	}
	a.gone()

	// A restart begins again.
	a.do("restart")
	a.wait("running")
	a.serves("two")

	// Destroy: the subdomain is free at once.
	first := a.id
	a.destroy()
	again := create(t, s, map[string]any{"image": image, "port": 8080, "subdomain": a.subdomain})
	if again.id == first {
		t.Fatal("the same id was given twice")
	}
	again.wait("running")
	again.serves("two")
	a.wait("destroyed")
	a.gone()
	again.destroy()
	again.wait("destroyed")
	again.gone()
	if page := again.page(http.StatusNotFound); !strings.Contains(string(page.Body), again.host) {
		t.Errorf("the page of an unknown host does not name it: %s", page)
	}
	if got := actions(a.logs()); !slices.Equal(got, []string{
		"create completed", "deploy completed", "restart completed", "stop completed", "restart completed", "destroy completed",
	}) {
		t.Errorf("the whole log says %v", got)
	}
	refused := expect(t, a.c, http.StatusUnprocessableEntity, http.MethodPost, a.path("/restart"), nil)
	if refused.JSON()["code"] != "invalid_state" {
		t.Errorf("a restart after the end answers %s", refused)
	}
}

func keys(m map[string]any) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// isTime reports whether the value is a time as the API writes it: RFC 3339, UTC.
func isTime(value any) bool {
	text := fmt.Sprint(value)
	_, err := time.Parse(time.RFC3339, text)
	return err == nil && strings.HasSuffix(text, "Z")
}
