package podman

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/node-agent/netpool"
	"github.com/slipway-paas/slipway/services/node-agent/runtime/runtimetest"
	"github.com/slipway-paas/slipway/services/node-agent/runtime/runtimetest/testimage"
)

// machine is a Podman root with the test image's registry, gone after the test.
type machine struct {
	podman   *Podman
	registry *testimage.Registry
	pool     *netpool.Pool
}

func newMachine(t testing.TB, pooled bool) *machine {
	t.Helper()
	return newMachineNamed(t, t.Name(), pooled, false)
}

func newMachineNamed(t testing.TB, name string, pooled, publish bool) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the Podman tests need root, for limits and networks")
	}
	if _, err := exec.LookPath("podman"); err != nil {
		t.Fatalf("Podman is missing: %v", err)
	}
	m := &machine{registry: testimage.New(t)}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	// The process's own: another checkout's tests may run on this machine.
	owner := fmt.Sprintf("test-%d-%s", os.Getpid(), name)
	deps := Deps{Log: log}
	if pooled {
		pool, err := netpool.New(netpool.Config{Owner: owner, Size: 4}, log)
		if err != nil {
			t.Fatalf("the pool of network namespaces: %v", err)
		}
		m.pool, deps.Namespaces = pool, pool
		t.Cleanup(func() {
			if err := pool.Destroy(); err != nil {
				t.Errorf("take the pool away: %v", err)
			}
		})
	}
	dir, err := os.MkdirTemp("", "slipway-podman-test-")
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(t.Context(), Config{
		Owner: owner, DataDir: dir, PublishPorts: publish, InsecureRegistries: []string{m.registry.Host},
	}, deps)
	if err != nil {
		t.Fatalf("start Podman: %v", err)
	}
	m.podman = p
	t.Cleanup(func() { m.cleanUp(t, dir) })
	return m
}

func (m *machine) cleanUp(t testing.TB, dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := m.podman.List(ctx)
	if err != nil {
		t.Errorf("list what the test left: %v", err)
	}
	for _, c := range list {
		// Podman refuses one that ends just as it is killed; the agent asks again too.
		err := m.podman.Remove(ctx, c.ID)
		for ; err != nil && ctx.Err() == nil; err = m.podman.Remove(ctx, c.ID) {
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("remove what the test left: %v", err)
		}
	}
	if m.pool != nil {
		m.pool.Retain(nil, time.Now())
	}
	if err := m.podman.RemoveBridge(ctx); err != nil {
		t.Error(err)
	}
	m.podman.Close()
	if err := m.podman.Purge(); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("remove the test's Podman root: %v", err)
	}
}

// otherOwner is another owner's view of the same Podman.
func (m *machine) otherOwner(owner string) *Podman {
	return &Podman{
		owner: owner, network: m.podman.network, root: m.podman.root, run: m.podman.run, bridge: m.podman.bridge, publish: m.podman.publish, log: m.podman.log, tracer: m.podman.tracer, pool: m.podman.pool,
		platform: m.podman.platform, seccomp: m.podman.seccomp, service: m.podman.service, registry: m.podman.registry,
		connection: m.podman.connection, ours: map[string]container{}, creating: map[string]bool{},
	}
}

func TestContractOnPodman(t *testing.T) {
	t.Parallel()
	for name, pooled := range map[string]bool{"with the pool": true, "on Podman's bridge": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, pooled)
			runtimetest.Run(t, runtimetest.Harness{
				Runtime: m.podman, Other: m.otherOwner("somebody-else"),
				Push: m.registry.Push, RegistryHost: m.registry.Host, SetRegistryDown: m.registry.SetDown,
			})
		})
	}
}
