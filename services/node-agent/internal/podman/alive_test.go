package podman

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// kill ends a container's process, and its monitor before it when that shall not tell.
func (m *machine) kill(t *testing.T, id string, monitorToo bool) {
	t.Helper()
	data, err := containers.Inspect(connected{t.Context(), m.podman.connection}, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{data.State.Pid}
	if monitorToo {
		pids = []int{data.State.ConmonPid, data.State.Pid}
	}
	for _, pid := range pids {
		if pid <= 1 {
			t.Fatalf("the container has the processes %v", pids)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAContainerKilledTogetherWithItsMonitorHasEnded(t *testing.T) {
	t.Parallel()
	m := newMachine(t, true)
	image := m.image(t)
	for name, monitorToo := range map[string]bool{"without-its-monitor": false, "with-its-monitor": true} {
		a := m.start(t, image, name, nil)
		before := time.Now()
		m.kill(t, a.id, monitorToo)
		deadline := time.Now().Add(20 * time.Second)
		for {
			c, err := m.podman.Inspect(t.Context(), a.id)
			if err != nil {
				t.Fatal(err)
			}
			if c.State == runtime.StateExited {
				if c.ExitCode != exitKilled || c.OOMKilled || c.Address != "" || c.FinishedAt.Before(before) {
					t.Errorf("%s: inspect = %+v", name, c)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: inspect = %+v", name, c)
			}
			time.Sleep(5 * time.Millisecond)
		}
		list, err := m.podman.List(t.Context())
		if err != nil || len(list) != 1 || list[0].State != runtime.StateExited {
			t.Errorf("%s: list = %+v, %v", name, list, err)
		}
		if err := m.podman.Stop(t.Context(), a.id, time.Second); err != nil {
			t.Errorf("%s: stop says %v", name, err)
		}
		m.end(t, m.start(t, image, name, nil)) // in its place, as the agent does it
	}
}

func TestAnotherProcessUnderItsNumberIsNotTheContainer(t *testing.T) {
	t.Parallel()
	own := os.Getpid()
	if !runs(own, time.Now()) {
		t.Error("a process that runs is said to have ended")
	}
	if runs(own, time.Now().Add(-24*time.Hour)) {
		t.Error("a process that began a day after the container is taken for its")
	}
	if monitors(own, "0123456789abcdef") {
		t.Error("any process is taken for a container's monitor")
	}
}
