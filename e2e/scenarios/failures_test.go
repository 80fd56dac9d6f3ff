package scenarios

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestAnImageThatCannotBePulledEndsTheDeploymentInWords(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := create(t, s, map[string]any{"image": s.Image("e2e/nobody-pushed-this:1")})
	a.fails("deploy", "image_pull_failed")
	a.leavesNothing()
}

func TestAContainerThatExitsAtOnceEndsTheDeploymentWithItsLastLines(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := create(t, s, map[string]any{"image": push(t, s, "latest", "one"), "env_vars": map[string]string{"EXIT_AT_START": "3"}})
	d := a.fails("deploy", "crashed")
	if d["exit_code"] != float64(3) {
		t.Errorf("the log's details have the exit code %v, want 3: %v", d["exit_code"], d)
	}
	if lines := fmt.Sprint(d["last_lines"]); !strings.Contains(lines, "testapp gives up with 3") {
		t.Errorf("the container's last lines are %v", lines)
	}
	a.leavesNothing()
}

func TestAPortNobodyListensOnEndsTheDeploymentAtItsDeadline(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := create(t, s, map[string]any{"image": push(t, s, "latest", "one"), "env_vars": map[string]string{"NEVER_LISTEN": "1"}, "port": 8080})
	if page := a.page(http.StatusServiceUnavailable); page.Header.Get("Retry-After") == "" {
		t.Errorf("the page of a starting app has no Retry-After: %v", page.Header)
	}
	a.fails("deploy", "health_timeout")
	// Its last lines are known when it has been ended.
	eventuallyLog(a, "the container's last lines", func(e map[string]any) bool {
		return e["action"] == "deploy" && strings.Contains(fmt.Sprint(details(e)["last_lines"]), "testapp listens nowhere")
	})
	if reason := fmt.Sprint(a.get()["status_reason"]); !strings.Contains(reason, "8080") {
		t.Errorf("the reason does not name the port: %s", reason)
	}
	a.leavesNothing()
}

func TestAnAppThatEatsTooMuchIsToldApart(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	// The answer is the connection's end.
	a.visit("/oom")
	eventuallyLog(a, "an out-of-memory restart", func(e map[string]any) bool {
		return e["action"] == "restart" && details(e)["oom_killed"] == true
	})
	a.serves("one")
	a.waitFor("healthy again", func(d map[string]any) bool { return d["status"] == "running" && d["health_status"] == "healthy" })
}

func TestACrashIsLoggedAndTheAppComesBack(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	a.visit("/crash?code=7")
	eventuallyLog(a, "a restart after exit code 7", func(e map[string]any) bool {
		d := details(e)
		return e["action"] == "restart" && d["exit_code"] == float64(7) && d["oom_killed"] != true &&
			strings.Contains(fmt.Sprint(d["last_lines"]), "testapp crashes with 7") && e["initiated_by"] == nil
	})
	a.serves("one")
	eventuallyLog(a, "the restart completed", func(e map[string]any) bool {
		return e["action"] == "restart" && e["status"] == "completed"
	})
	if d := a.get(); d["status"] != "running" {
		t.Errorf("after a crash the deployment is %v", d)
	}
}

func TestACrashLoopBacksOffAndSaysSo(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	began := time.Now()
	crashes := 0
	for crashes < 4 {
		a.serves("one")
		a.visit("/crash?code=1")
		crashes++
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("%d crashes took %s: there is no backoff", crashes, took)
	}
	if page := a.page(http.StatusServiceUnavailable); page.Header.Get("Retry-After") == "" {
		t.Errorf("the page of an app that is down has no Retry-After")
	}
	a.waitFor("unhealthy while it is down", func(d map[string]any) bool { return d["health_status"] != "healthy" })
	a.serves("one")
}

func TestAReleaseThatNeverGetsHealthyLeavesTheOldOneServing(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "good"), "port": 8080})
	visitors := a.visitors(2)
	push(t, s, "latest", "bad", "HEALTH=fail")
	a.do("restart")
	d := a.fails("restart", "health_timeout")
	if reason := fmt.Sprint(d["reason"]); reason == "" {
		t.Error("no reason is given")
	}
	served, failed := visitors.leave()
	if len(failed) > 0 || served == 0 {
		t.Errorf("%d requests were served, %d failed: %.3v", served, len(failed), failed)
	}
	if got := a.visit("/").JSON()["version"]; got != "good" {
		t.Errorf("the edge serves %v, want the old release", got)
	}
	if d := a.get(); d["status"] != "running" || d["health_status"] != "healthy" {
		t.Errorf("the old release serves, but the deployment is %v", d)
	}
	eventually(t, "only the old release's container is left", onlyContainers(a, 1))

	// The next good one goes live as if nothing had been.
	push(t, s, "latest", "better")
	a.do("restart")
	a.serves("better")
	a.wait("running")
}

func TestAStopWhileStartingEndsStopped(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := create(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080, "env_vars": map[string]string{"LISTEN_DELAY": "60000"}})
	eventually(t, "a container", onlyContainers(a, 1))
	a.do("stop")
	a.wait("stopped")
	a.gone()
	a.destroy()
	a.wait("destroyed")
	a.leavesNothing()
}

func TestADestroyWhileStartingLeavesNothing(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := create(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080, "env_vars": map[string]string{"LISTEN_DELAY": "60000"}})
	a.destroy()
	a.wait("destroyed")
	a.leavesNothing()
}

func TestTheEdgeKeepsServingWhileTheDaemonIsAway(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{})
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	if err := s.Process(stack.Daemon).Kill(); err != nil {
		t.Fatal(err)
	}
	if answer := a.visit("/"); answer.Status != http.StatusOK {
		t.Errorf("while the daemon is away the edge answers %s", answer)
	}
	if err := s.Restart(stack.Daemon); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.serves("one")
	a.wait("running")
}
