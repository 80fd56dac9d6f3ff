package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestTheIngressOfAnAppInOneDaemon(t *testing.T) {
	t.Parallel()
	theIngressOfAnApp(t, platform(t))
}

func TestTheIngressOfAnAppWithEveryServiceItsOwnProcess(t *testing.T) {
	t.Parallel()
	theIngressOfAnApp(t, own(t, stack.Processes, stack.Options{}))
}

// theIngressOfAnApp: its visitors' requests are in its log under the ids that they saw,
// summed up, and treated as its owner says from one moment to the next.
func theIngressOfAnApp(t *testing.T, s *stack.Stack) {
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	app := "/api/v1/apps/" + a.subdomain

	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	visited := a.visit("/env?name=PATH&token=planted-secret", "Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	id := visited.Header.Get("X-Request-Id")
	if visited.Status != http.StatusOK || id == "" {
		t.Fatalf("a visitor is answered %s with the id %q", visited, id)
	}
	entry := a.logged(app, id)
	if entry["trace_id"] != trace || entry["path"] != "/env" || entry["status"] != 200.0 || entry["host"] != a.host || entry["instance_id"] == nil || entry["page"] != nil || entry["service_ms"] == nil {
		t.Errorf("it is logged as %v", entry)
	}
	text := expect(t, a.c, http.StatusOK, http.MethodGet, app+"/logs?source=router", nil)
	if line := string(text.Body); !strings.Contains(line, " router[web.") || !strings.Contains(line, "request_id="+id+" trace_id="+trace) || strings.Contains(line, "planted-secret") {
		t.Errorf("the log says %s", line)
	}
	expect(t, a.c, http.StatusNotFound, http.MethodGet, "/api/v1/apps/"+uuid.NewString()+"/logs?source=router", nil)

	expect(t, a.c, http.StatusOK, http.MethodPut, app+"/ingress", map[string]any{"maintenance": true})
	if answer := a.page(http.StatusServiceUnavailable); answer.Header.Get("Retry-After") == "" || !strings.Contains(string(answer.Body), "maintenance") {
		t.Errorf("under maintenance a visitor is answered %s", answer)
	} else if entry := a.logged(app, answer.Header.Get("X-Request-Id")); entry["page"] != "app_maintenance" || entry["upstream"] != nil {
		t.Errorf("that is logged as %v", entry)
	}
	if d := a.get(); d["status"] != "running" || d["health_status"] != "healthy" {
		t.Errorf("under maintenance the deployment is %v", d)
	}
	// Of the ingress what is not named stays as it is.
	changed := expect(t, a.c, http.StatusOK, http.MethodPut, app+"/ingress", map[string]any{"max_request_bytes": 2048}).Object("ingress")
	if changed["maintenance"] != true || changed["max_request_bytes"] != 2048.0 {
		t.Errorf("the ingress is %v", changed)
	}
	expect(t, a.c, http.StatusOK, http.MethodPut, app+"/ingress", map[string]any{"maintenance": false})
	a.page(http.StatusOK)
	for size, want := range map[int]int{2048: http.StatusOK, 2049: http.StatusRequestEntityTooLarge} {
		// A body without a length is held to it too.
		for _, body := range []io.Reader{bytes.NewReader(make([]byte, size)), io.MultiReader(bytes.NewReader(make([]byte, size)))} {
			answer, err := client.Visit(t.Context(), s.Edge, a.host, http.MethodPost, "/", body)
			if err != nil || answer.Status != want {
				t.Errorf("%d bytes are answered %s, %v, want %d", size, answer, err, want)
			}
		}
	}
	if answer := call(t, a.c, http.MethodPut, app+"/ingress", map[string]any{"drain_seconds": 86400}); answer.Status != http.StatusUnprocessableEntity {
		t.Errorf("a drain of a day is answered %s", answer)
	}
	eventuallyLog(a, "the audit log tells of the ingress", func(e map[string]any) bool {
		details, _ := e["details"].(map[string]any)
		return e["action"] == "ingress" && e["status"] == "completed" && e["initiated_by"] != nil && details["max_request_bytes"] == 2048.0
	})

	eventually(t, "the requests are summed up", func(ctx context.Context) (bool, string, error) {
		answer, err := a.c.Do(ctx, http.MethodGet, app+"/metrics/requests?window=10m", nil)
		if err != nil || answer.Status == http.StatusTooManyRequests {
			return false, "", err
		}
		m := answer.JSON()
		errors, _ := m["errors"].(map[string]any)
		n, _ := m["requests"].(float64)
		p99, _ := m["p99_ms"].(float64)
		return n >= 6 && errors["client"] == 2.0 && p99 > 0, answer.String(), nil
	})
}

// logged waits until the app's access log has the request with that id.
func (a *app) logged(app, id string) map[string]any {
	a.t.Helper()
	var found map[string]any
	eventually(a.t, "the request "+id+" is in the log", func(ctx context.Context) (bool, string, error) {
		answer, err := a.c.Do(ctx, http.MethodGet, app+"/logs?source=router&format=json&lines=1000", nil)
		if err != nil {
			return false, err.Error(), nil
		}
		for line := range bytes.Lines(answer.Body) {
			var entry map[string]any
			if json.Unmarshal(line, &entry) == nil && entry["request_id"] == id {
				found = entry
			}
		}
		return found != nil, answer.String(), nil
	})
	return found
}
