package scenarios

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestTwoNodesShareTheAppsAndWaitForRoom(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Processes, stack.Options{NodeMemoryMB: 600})
	image := push(t, s, "latest", "one")
	second, err := s.AddNode(t.Context(), "second")
	if err != nil {
		t.Fatal(err)
	}

	// Four of 256 MB fill two nodes of 600 MB: two on each.
	var apps []*app
	hosts := map[any]int{}
	for i := range 4 {
		a := deploy(t, s, map[string]any{"image": image, "port": 8080, "subdomain": name(t, fmt.Sprint(i))})
		a.serves("one")
		apps = append(apps, a)
		hosts[a.get()["host_server"]]++
	}
	if len(hosts) != 2 {
		t.Errorf("the apps are on the nodes %v, want two on each of two", hosts)
	}
	list, err := second.Podman().Containers(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("the second node runs %d containers, want 2: %v", len(list), err)
	}

	// The fifth fits nowhere: it waits, and says why.
	waiting := create(t, s, map[string]any{"image": image, "port": 8080, "subdomain": name(t, "waits")})
	waiting.waitFor("pending", func(d map[string]any) bool { return d["status"] == "pending" })
	eventuallyLog(waiting, "a reason", func(e map[string]any) bool {
		return e["action"] == "deploy" && strings.Contains(fmt.Sprint(details(e)["waiting"]), "MB")
	})
	if reason, _ := waiting.get()["status_reason"].(string); reason == "" {
		t.Error("a deployment that waits for room does not say so")
	}
	if page := waiting.page(http.StatusServiceUnavailable); page.Header.Get("Retry-After") == "" {
		t.Error("the page of an app that waits has no Retry-After")
	}

	// Room comes, and it is placed there.
	apps[0].destroy()
	waiting.wait("running")
	waiting.serves("one")
}
