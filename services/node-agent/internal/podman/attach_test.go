package podman

import (
	"context"
	"errors"
	"testing"

	"github.com/slipway-paas/slipway/services/node-agent/netpool"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

var errNoLease = errors.New("no namespace today")

// without is a pool that gives nothing.
type without struct{ Namespaces }

func (without) Lease(context.Context) (netpool.Lease, error) { return netpool.Lease{}, errNoLease }

func TestAContainerThatGetsNoNetworkLeavesNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t, true)
	image := m.image(t)
	spec := runtime.Spec{Name: "unattached", Image: image, Port: 3000}
	m.podman.pool = without{m.pool}
	if _, err := m.podman.Create(t.Context(), spec); !errors.Is(err, errNoLease) {
		t.Fatalf("create says %v", err)
	}
	m.podman.pool = m.pool

	// Nor does one that got its network and cannot be made.
	lease := &lastLease{Namespaces: m.pool}
	m.podman.pool = lease
	spec.Image = "no such image"
	if _, err := m.podman.Create(t.Context(), spec); err == nil {
		t.Fatal("a container of no image was made")
	}
	if lease.released != lease.given || lease.given == "" {
		t.Errorf("given was %q, released %q", lease.given, lease.released)
	}
	m.podman.pool = m.pool

	if list, err := m.podman.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("left are %v, %v", list, err)
	}
	if len(m.podman.creating) != 0 || len(m.podman.ours) != 0 {
		t.Errorf("remembered are %v, %v", m.podman.creating, m.podman.ours)
	}
	m.start(t, image, "unattached", nil) // the name is free
}

// lastLease remembers what was given and released.
type lastLease struct {
	Namespaces
	given, released string
}

func (l *lastLease) Lease(ctx context.Context) (netpool.Lease, error) {
	lease, err := l.Namespaces.Lease(ctx)
	l.given = lease.Name
	return lease, err
}

func (l *lastLease) Release(name string) {
	l.released = name
	l.Namespaces.Release(name)
}
