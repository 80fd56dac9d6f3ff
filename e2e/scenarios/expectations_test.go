package scenarios

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// fails waits until the newest entry of that action failed with the code, and
// returns its details. A first deploy that fails leaves the deployment stopped.
func (a *app) fails(action, code string) map[string]any {
	a.t.Helper()
	var found map[string]any
	eventuallyLog(a, action+" failed with "+code, func(e map[string]any) bool {
		if e["action"] != action || e["status"] != "failed" {
			return false
		}
		found = details(e)
		return true
	})
	if found["code"] != code {
		a.t.Errorf("the %s failed with the code %v, want %s: %v", action, found["code"], code, found)
	}
	if action == "deploy" {
		a.wait("stopped")
		if reason, _ := a.get()["status_reason"].(string); strings.Count(reason, " ") < 3 {
			a.t.Errorf("the status reason is no sentence: %q", reason)
		}
	}
	return found
}

// leavesNothing checks that a deployment that failed or was destroyed has no
// container, no route and no claim on its name.
func (a *app) leavesNothing() {
	a.t.Helper()
	a.gone()
	a.page(http.StatusNotFound)
	answer := expect(a.t, a.c, http.StatusCreated, http.MethodPost, "/api/deploy/apps",
		map[string]any{"subdomain": a.subdomain, "image": a.s.Image("e2e/nobody-pushed-this:1"), "tier": "buddo-starter"})
	id, _ := answer.Object("deployment")["id"].(string)
	expect(a.t, a.c, http.StatusOK, http.MethodDelete, "/api/deploy/apps/"+id, nil)
}

func eventuallyLog(a *app, what string, check func(entry map[string]any) bool) {
	a.t.Helper()
	eventually(a.t, "the log has "+what, func(ctx context.Context) (bool, string, error) {
		answer, err := a.c.Do(ctx, http.MethodGet, a.path("/logs"), nil)
		if err != nil {
			return false, err.Error(), nil
		}
		logs := answer.List("logs")
		for _, e := range logs {
			if check(e) {
				return true, "", nil
			}
		}
		return false, fmt.Sprint(logs), nil
	})
}

// onlyContainers checks that the deployment has exactly n containers.
func onlyContainers(a *app, n int) func(context.Context) (bool, string, error) {
	return func(ctx context.Context) (bool, string, error) {
		list, err := containersOf(ctx, a.s, a.id)
		if err != nil {
			return false, err.Error(), nil
		}
		return len(list) == n, fmt.Sprintf("%d containers", len(list)), nil
	}
}
