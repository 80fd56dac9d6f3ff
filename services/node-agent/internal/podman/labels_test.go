package podman

import (
	"fmt"
	"testing"

	"github.com/containers/podman/v5/pkg/bindings/containers"

	"github.com/slipway-paas/slipway/services/node-agent/netpool"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// relabelled runs a container of ours on which somebody put other labels.
func (m *machine) relabelled(t *testing.T, name string, labels map[string]string) runtime.Container {
	t.Helper()
	lease, err := m.pool.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.pool.Release(lease.Name) })
	g := m.podman.specFor(runtime.Spec{Name: name, Image: m.image(t), Port: 3000},
		network{namespace: lease.Name, path: lease.Path, ip: lease.IP})
	for label, value := range labels {
		g.Labels[label] = value
	}
	ctx := connected{t.Context(), m.podman.connection}
	made, err := containers.CreateWithSpec(ctx, g, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.podman.Start(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	c, err := m.podman.Inspect(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOnlyAnAddressThatThePoolGaveIsBelieved(t *testing.T) {
	t.Parallel()
	m := newMachine(t, true)
	subnet := m.pool.Subnet()
	gateway := subnet.Addr().Next()
	bridge := netpool.BridgeName("slw", m.podman.network)
	named := func(ip string) string { return bridge + "-" + ip }
	inside := gateway.Next().String()

	if c := m.relabelled(t, "untouched", nil); c.Address == "" {
		t.Errorf("a container of ours is nowhere: %+v", c)
	}
	for name, labels := range map[string]map[string]string{
		"loopback":         {labelIP: "127.0.0.1", labelNamespace: named("127.0.0.1")},
		"metadata":         {labelIP: "169.254.169.254", labelNamespace: named("169.254.169.254")},
		"the-gateway":      {labelIP: gateway.String(), labelNamespace: named(gateway.String())},
		"no-address":       {labelIP: "localhost", labelNamespace: named("localhost")},
		"ipv6":             {labelIP: "::1", labelNamespace: named("::1")},
		"another-pools":    {labelNamespace: "slw00000000-" + inside, labelIP: inside},
		"a-path":           {labelNamespace: "../../proc/1/ns/net", labelIP: inside},
		"another-of-ours":  {labelNamespace: named(gateway.Next().Next().String()), labelIP: inside},
		"only-an-address":  {labelNamespace: "", labelIP: inside},
		"only-a-namespace": {labelIP: ""},
		"no-port":          {labelPort: "22;"},
		"port-zero":        {labelPort: "0"},
	} {
		if c := m.relabelled(t, name, labels); c.Address != "" || c.State != runtime.StateRunning {
			t.Errorf("%s: believed %v: %+v", name, labels, c)
		}
	}
	// What is not the pool's is not the pool's to keep or to let go either.
	if _, err := m.podman.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, known := range m.podman.ours {
		if known.namespace != "" && m.pool.Check(known.namespace, known.namespace[len(bridge)+1:]) != nil {
			t.Errorf("container %s is said to be in %s", id, known.namespace)
		}
	}
}

func TestWithoutThePoolItsAddressesAreStillKnown(t *testing.T) {
	t.Parallel()
	const owner = "acme/n1"
	bridge := netpool.BridgeName("slw", owner)
	for ip, believed := range map[string]bool{
		"10.90.0.2": true, "10.99.255.254": true, "10.89.0.2": false, "10.100.0.2": false, "127.0.0.1": false, "11.90.0.2": false, "::1": false, "": false,
	} {
		if err := netpool.Check(owner, fmt.Sprint(bridge, "-", ip), ip); (err == nil) != believed {
			t.Errorf("%q: %v", ip, err)
		}
		if err := netpool.Check("another", fmt.Sprint(bridge, "-", ip), ip); err == nil {
			t.Errorf("%q is believed of another owner", ip)
		}
	}
}
