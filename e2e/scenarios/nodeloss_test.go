package scenarios

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// lossBudget is how long after a node's last heartbeat its apps may be away, with
// the platform's own settings.
const lossBudget = 30 * time.Second

// heartbeat is how long before its death a node may have been heard of last.
const heartbeat = 2 * time.Second

// powerOff ends everything that runs on a node at once: agent, Podman, monitors and
// containers.
func powerOff(t *testing.T, s *stack.Stack, node *stack.Node, agent string) {
	t.Helper()
	list, err := node.Podman().Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Process(agent).Kill(); err != nil {
		t.Fatal(err)
	}
	killWhere(t, "the node's Podman and monitors", func(cmdline string) bool { return strings.Contains(cmdline, node.Dir+"/") })
	for _, c := range list {
		if c.Pid > 0 {
			_ = syscall.Kill(c.Pid, syscall.SIGKILL) // gone is what we want
		}
	}
}

// on waits until the app runs on that node.
func (a *app) on(node string) {
	a.t.Helper()
	eventually(a.t, a.host+" is on the node "+node, func(ctx context.Context) (bool, string, error) {
		answer, err := a.c.Do(ctx, http.MethodGet, a.path(""), nil)
		if err != nil {
			return false, err.Error(), nil
		}
		d := answer.Object("deployment")
		return d["host_server"] == node && d["health_status"] == "healthy", answer.String(), nil
	})
}

// nodeIs waits until the platform says that of a node.
func nodeIs(t *testing.T, s *stack.Stack, id, status string, instances float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("the node %s is %s with %v instances", id, status, instances), func(ctx context.Context) (bool, string, error) {
		answer, err := s.Client().Do(ctx, http.MethodGet, "/api/v1/admin/nodes", nil)
		if err != nil {
			return false, err.Error(), nil
		}
		for _, n := range answer.List("nodes") {
			if n["node_id"] == id {
				return n["status"] == status && n["instances"] == instances, answer.String(), nil
			}
		}
		return false, answer.String(), nil
	})
}

// emptied waits until a node has no container left.
func emptied(t *testing.T, node *stack.Node) {
	t.Helper()
	eventually(t, "no container is left on "+node.ID, func(ctx context.Context) (bool, string, error) {
		list, err := node.Podman().Containers(ctx)
		return err == nil && len(list) == 0, fmt.Sprint(list, err), nil
	})
}

func TestAMachineDiesAndItsAppsMove(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Processes, stack.Options{NodeMemoryMB: 1200})
	first := s.Nodes()[0]
	image := push(t, s, "latest", "one")
	var apps []*app
	for i := range 3 {
		a := deploy(t, s, map[string]any{"image": image, "port": 8080, "subdomain": name(t, fmt.Sprint(i))})
		a.serves("one")
		a.on(first.ID)
		apps = append(apps, a)
	}
	second, err := s.AddNode(t.Context(), "second")
	if err != nil {
		t.Fatal(err)
	}
	nodeIs(t, s, second.ID, "ready", 0)
	// The tag moves on; what runs is what was released.
	push(t, s, "latest", "two")

	powerOff(t, s, first, "slipway-node-agent")
	died := time.Now()
	for _, a := range apps {
		a.on(second.ID)
		a.serves("one")
	}
	if took := time.Since(died) + heartbeat; took > lossBudget {
		t.Errorf("the apps were back at most %s after the last heartbeat, want %s", took, lossBudget)
	} else {
		t.Logf("three apps answered again %s after the machine died", time.Since(died).Round(10*time.Millisecond))
	}
	nodeIs(t, s, first.ID, "lost", 3)
	for _, a := range apps {
		if last := entry(a.logs(), "restart"); last["status"] != "completed" || last["initiated_by"] != nil || details(last)["from_node"] != first.ID {
			t.Errorf("the audit log tells the move as %v", last)
		}
	}

	visitors := apps[0].visitors(1)
	if err := s.Restart("slipway-node-agent"); err != nil {
		t.Fatal(err)
	}
	nodeIs(t, s, first.ID, "ready", 0)
	emptied(t, first)
	for _, a := range apps {
		a.serves("one")
		a.on(second.ID)
		eventually(t, "one container is left", onlyContainers(a, 1))
	}
	if served, failed := visitors.leave(); len(failed) > 0 || served == 0 {
		t.Errorf("while the node returned %d requests were served, %d failed: %.3v", served, len(failed), failed)
	}
	// It takes instances again, as the emptiest.
	again := deploy(t, s, map[string]any{"image": image, "port": 8080, "subdomain": name(t, "again")})
	again.serves("two")
	again.on(first.ID)
}

func TestADestroyDoesNotWaitForADeadMachine(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Processes, stack.Options{NodeMemoryMB: 300})
	first := s.Nodes()[0]
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	powerOff(t, s, first, "slipway-node-agent")
	nodeIs(t, s, first.ID, "lost", 1)
	a.waitFor("it is down", func(d map[string]any) bool { return d["status"] == "running" && d["health_status"] == "unhealthy" })
	if reason, _ := a.get()["status_reason"].(string); reason == "" {
		t.Error("an app that waits for a node does not say so")
	}
	began := time.Now()
	a.destroy()
	a.wait("destroyed")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the destroy took %s", took)
	}
	if err := s.Restart("slipway-node-agent"); err != nil {
		t.Fatal(err)
	}
	emptied(t, first)
}

func TestADrainLosesNoRequest(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Processes, stack.Options{NodeMemoryMB: 1200})
	first := s.Nodes()[0]
	image := push(t, s, "latest", "one")
	var apps []*app
	var crowds []*visitors
	for i := range 2 {
		a := deploy(t, s, map[string]any{"image": image, "port": 8080, "subdomain": name(t, fmt.Sprint(i))})
		a.on(first.ID)
		apps = append(apps, a)
		crowds = append(crowds, a.visitors(2))
	}
	second, err := s.AddNode(t.Context(), "second")
	if err != nil {
		t.Fatal(err)
	}
	nodeIs(t, s, second.ID, "ready", 0)
	admin := func(node, verb string) client.Answer {
		t.Helper()
		return expect(t, s.Client(), http.StatusOK, http.MethodPost, "/api/v1/admin/nodes/"+node+"/"+verb, nil)
	}
	for _, way := range [][2]*stack.Node{{first, second}, {second, first}, {first, second}} {
		from, to := way[0], way[1]
		if n := admin(from.ID, "drain").Object("node"); n["status"] != "draining" {
			t.Fatalf("the drain answered %v", n)
		}
		for _, a := range apps {
			a.on(to.ID)
		}
		nodeIs(t, s, from.ID, "draining", 0)
		emptied(t, from)
		if n := admin(from.ID, "uncordon").Object("node"); n["status"] != "ready" {
			t.Fatalf("the uncordon answered %v", n)
		}
	}
	for i, crowd := range crowds {
		served, failed := crowd.leave()
		if len(failed) > 0 || served == 0 {
			t.Errorf("%d requests were served, %d failed: %.3v", served, len(failed), failed)
		}
		t.Logf("%d requests served over 3 drains", served)
		if types := apps[i].types(); !inOrder(types, "DeploymentRunning", "InstancesRescheduled", "RouteBound", "InstancesRetired", "ContainerRemoved") ||
			slices.Contains(types, "ReleaseFailed") {
			t.Errorf("the story is %v", types)
		}
	}
	missing := call(t, s.Client(), http.MethodPost, "/api/v1/admin/nodes/never/drain", nil)
	if missing.Status != http.StatusNotFound {
		t.Errorf("draining a node that never was: %s", missing)
	}
}

// entry is the last entry of that action, or nil.
func entry(logs []map[string]any, action string) map[string]any {
	for _, e := range slices.Backward(logs) {
		if e["action"] == action {
			return e
		}
	}
	return nil
}
