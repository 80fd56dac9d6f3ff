package scenarios

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestWhateverIsKilledComesBack(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{})
	image := push(t, s, "latest", "one")
	a := deploy(t, s, map[string]any{"image": image, "port": 8080})
	b := deploy(t, s, map[string]any{"image": image, "port": 8080, "subdomain": name(t, "b")})
	node := s.Nodes()[0]
	both := func() {
		t.Helper()
		for _, x := range []*app{a, b} {
			x.serves("one")
			x.waitFor("running and healthy", func(d map[string]any) bool {
				return d["status"] == "running" && d["health_status"] == "healthy"
			})
			eventually(t, "one container", onlyContainers(x, 1))
		}
	}
	killContainer := func(x *app) {
		t.Helper()
		for _, c := range x.containers() {
			if err := node.Podman().Kill(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	killDaemon := func() {
		t.Helper()
		if err := s.Process(stack.Daemon).Kill(); err != nil {
			t.Fatal(err)
		}
	}
	startDaemon := func() {
		t.Helper()
		if err := s.Restart(stack.Daemon); err != nil {
			t.Fatal(err)
		}
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	t.Log("a container is killed behind the agent's back")
	killContainer(a)
	both()

	t.Log("a container is removed behind the agent's back")
	for _, c := range b.containers() {
		if err := node.Podman().Remove(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	both()

	t.Log("Podman's service is killed")
	killPodman(t, node)
	both()

	t.Log("the daemon is killed")
	killDaemon()
	startDaemon()
	both()

	t.Log("the daemon, then a container, are killed")
	pid := a.containers()[0].Pid
	killDaemon()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	startDaemon()
	both()

	t.Log("Podman's service and a container are killed at once")
	pid = b.containers()[0].Pid
	killPodman(t, node)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	both()

	t.Log("the edge is killed")
	killChild(t, s, "slipway-edge")
	both()

	t.Log("what nobody asked for is removed, what is another's is not")
	a.destroy()
	a.wait("destroyed")
	a.gone()
	b.serves("one")
}

// killPodman kills the node's Podman service, as the kernel might.
func killPodman(t *testing.T, node *stack.Node) {
	t.Helper()
	socket := node.Socket()
	killWhere(t, "Podman's service", func(cmdline string) bool {
		return strings.Contains(cmdline, "system\x00service") && strings.Contains(cmdline, socket)
	})
	eventually(t, "Podman answers again", func(ctx context.Context) (bool, string, error) {
		err := node.Podman().Ping(ctx)
		return err == nil, fmt.Sprint(err), nil
	})
}

// killChild kills a child of the daemon.
func killChild(t *testing.T, s *stack.Stack, name string) {
	t.Helper()
	killWhere(t, name, func(cmdline string) bool {
		return strings.HasSuffix(strings.SplitN(cmdline, "\x00", 2)[0], name) && strings.Contains(cmdline, s.Dir)
	})
}

func killWhere(t *testing.T, what string, match func(cmdline string) bool) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil || !match(string(cmdline)) {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %s: %v", what, err)
		}
		killed++
	}
	if killed == 0 {
		t.Fatalf("%s does not run: nothing to kill", what)
	}
}

func TestStoppedCleanlyAndStartedAgainTheAppAnswers(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{})
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	stopped := deploy(t, s, map[string]any{"image": a.get()["container_image"], "port": 8080, "subdomain": name(t, "stopped")})
	stopped.do("stop")
	stopped.wait("stopped")
	token := s.Token
	for range 2 {
		if err := s.Process(stack.Daemon).Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Restart(stack.Daemon); err != nil {
			t.Fatal(err)
		}
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.Token != token {
			t.Fatal("a second start made other credentials")
		}
		a.serves("one")
		a.wait("running")
		stopped.wait("stopped")
		stopped.gone()
	}
	stopped.do("restart")
	stopped.serves("one")
}

func TestTwoDaemonsLiveSideBySide(t *testing.T) {
	t.Parallel()
	one := platform(t)
	two := own(t, stack.Standalone, stack.Options{})
	// The same subdomain on both: they know nothing of each other.
	a := deploy(t, one, map[string]any{"image": push(t, one, "latest", "first"), "port": 8080})
	b := deploy(t, two, map[string]any{"image": push(t, two, "latest", "second"), "port": 8080})
	a.serves("first")
	b.serves("second")
	b.destroy()
	b.wait("destroyed")
	b.gone()
	b.page(404)
	a.serves("first")
	if answer := call(t, two.Client(), "GET", a.path(""), nil); answer.Status != 404 {
		t.Errorf("the second daemon knows the first one's deployment: %s", answer)
	}
}

func TestADeepDataDirectoryIsNoObstacle(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{Below: strings.Repeat("a-rather-deep-place/", 5)})
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	a.serves("one")
}
