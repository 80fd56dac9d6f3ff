package netpool

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	goruntime "runtime"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// outside is a listener in a namespace that stands for the rest of the world: it
// knows the machine's address and no way to the pool's.
type world struct {
	listener net.Listener
	address  netip.Addr
	machine  netip.Addr // as the world knows it
	name     string     // of the namespace
	link     netlink.Link
}

// worlds is how many a test process has made: each has addresses of its own.
var worlds atomic.Int32

// port is the listener's.
func (w world) port() int { return w.listener.Addr().(*net.TCPAddr).Port }

// at is the listener at that address of the world's.
func (w world) at(address netip.Addr) string {
	return netip.AddrPortFrom(address, uint16(w.port())).String()
}

func outside(t *testing.T) world {
	t.Helper()
	// RFC 2544's addresses are for tests, so nobody's; other checkouts may run theirs.
	const bits = 29
	nth := worlds.Add(1)
	machine := netip.AddrFrom4([4]byte{198, 18, byte(os.Getpid()), byte(nth<<(32-bits)) + 1})
	address := machine.Next()
	veth := fmt.Sprintf("slpout%05x%02x", os.Getpid()&0xfffff, nth)
	name := "slipway-test-" + veth
	goruntime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	made, err := netns.NewNamed(name)
	if setErr := netns.Set(home); setErr != nil {
		t.Fatal(setErr)
	}
	goruntime.UnlockOSThread()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		made.Close()
		if err := destroyNamespace(name, veth); err != nil {
			t.Error(err)
		}
	})
	attrs := netlink.NewLinkAttrs()
	attrs.Name = veth
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(made))}); err != nil {
		t.Fatal(err)
	}
	near, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(near) }) // it may have gone with its namespace
	if err := netlink.AddrAdd(near, &netlink.Addr{IPNet: ipNet(machine, bits)}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(near); err != nil {
		t.Fatal(err)
	}
	if err := configureInside(made, address, machine, bits); err != nil {
		t.Fatal(err)
	}
	// Without a route back, only what comes from the machine's own address is answered.
	handle, err := netlink.NewHandleAt(made)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	if err := handle.RouteDel(&netlink.Route{Gw: machine.AsSlice()}); err != nil {
		t.Fatal(err)
	}
	var listener net.Listener
	in(t, name, func() (err error) {
		listener, err = net.Listen("tcp4", "0.0.0.0:0")
		return err
	})
	t.Cleanup(func() { listener.Close() })
	return world{listener: listener, address: address, machine: machine, name: name, link: near}
}

// answersAt has the world answer at another address too, for what comes from the subnet
// only: the machine's own way there stays as it is.
func (w world) answersAt(t *testing.T, address netip.Addr, subnet netip.Prefix) {
	t.Helper()
	ns, err := netns.GetFromName(w.name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := handle.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(address, 32)}); err != nil {
		t.Fatal(err)
	}
	rule := netlink.NewRule()
	rule.Src, rule.Table = ipNet(subnet.Addr(), subnet.Bits()), 20_000+os.Getpid()%10_000
	route := &netlink.Route{Dst: ipNet(address, 32), Gw: w.address.AsSlice(), LinkIndex: w.link.Attrs().Index, Table: rule.Table}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	if err := netlink.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.RuleDel(rule); err != nil {
			t.Error(err)
		}
	})
}
