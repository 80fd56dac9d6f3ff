package netpool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	// refusal is how long a connection is tried that must not come about, arrival one that
	// must: the first packets may meet a link that is just coming up.
	refusal = time.Second
	arrival = 10 * time.Second
)

// dial tries a connection from that namespace.
func dial(t *testing.T, namespace, network, address string, within time.Duration) (err error) {
	t.Helper()
	in(t, namespace, func() error {
		var conn net.Conn
		if conn, err = net.DialTimeout(network, address, within); err == nil {
			conn.Close()
		}
		return nil
	})
	t.Logf("from %s to %s: %v", namespace, address, err)
	return err
}

// inside is the address through the namespace's own interface. The number says which:
// names are looked up once for the whole process, in whatever namespace that was.
func inside(t *testing.T, namespace string, address netip.Addr, port int) string {
	t.Helper()
	var index int
	in(t, namespace, func() error {
		link, err := net.InterfaceByName("eth0")
		if err == nil {
			index = link.Index
		}
		return err
	})
	return fmt.Sprintf("[%s%%%d]:%d", address, index, port)
}

// everywhere is a listener on all of the machine's IPv6 addresses.
func everywhere(t *testing.T) (port int) {
	t.Helper()
	listener, err := net.Listen("tcp6", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

// linkLocalOf is the address that IPv6 gives an interface by itself (RFC 4291, appendix A).
func linkLocalOf(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80,
		8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

func TestContainersHaveNoIPv6AndReachTheMachineOverNone(t *testing.T) {
	t.Parallel()
	p := newPool(t, t.Name(), 1)
	defer destroy(t, p)
	l := lease(t, p)
	outer := outside(t)

	in(t, l.Name, func() error {
		for _, name := range []string{"all", "default", "eth0", "lo"} {
			value, err := os.ReadFile(filepath.Join(ipv6Settings, name, "disable_ipv6"))
			if err != nil {
				return err
			}
			if string(value) != "1\n" {
				t.Errorf("disable_ipv6 of %s is %q", name, value)
			}
		}
		addresses, err := net.InterfaceAddrs()
		if slices.ContainsFunc(addresses, func(a net.Addr) bool { return strings.Contains(a.String(), ":") }) {
			t.Errorf("it has the addresses %v", addresses)
		}
		return err
	})
	bridge, err := netlink.LinkByName(p.bridge.Attrs().Name)
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := netlink.AddrList(bridge, netlink.FAMILY_V6)
	if err != nil || len(addresses) != 0 {
		t.Errorf("the bridge has %v, %v: what listens on all addresses is reached there", addresses, err)
	}
	if at := inside(t, l.Name, linkLocalOf(bridge.Attrs().HardwareAddr), everywhere(t)); dial(t, l.Name, "tcp6", at, refusal) == nil {
		t.Errorf("a container reaches the machine at %s", at)
	}
	if at := outer.at(outer.address); dial(t, l.Name, "tcp4", at, arrival) != nil {
		t.Errorf("a container does not reach the outside at %s", at)
	}
}

// IPv6 that somebody turns on again must not open the machine either.
func TestTheFirewallDropsIPv6ThatIsOnNevertheless(t *testing.T) {
	t.Parallel()
	p := newPool(t, t.Name(), 1)
	defer destroy(t, p)
	l := lease(t, p)
	name := p.bridge.Attrs().Name
	turnOn := func(device string) error {
		for _, setting := range []string{"accept_dad", "disable_ipv6"} {
			if err := os.WriteFile(filepath.Join(ipv6Settings, device, setting), []byte("0"), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	if err := turnOn(name); err != nil {
		t.Fatal(err)
	}
	in(t, l.Name, func() error { return errors.Join(turnOn("all"), turnOn("eth0")) })
	port := everywhere(t)
	deadline := time.Now().Add(10 * time.Second)
	var machine netip.Addr
	for !machine.IsValid() { // until the machine reaches itself there
		addresses, err := netlink.AddrList(p.bridge, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			own, _ := netip.AddrFromSlice(a.IP)
			conn, err := net.DialTimeout("tcp6", fmt.Sprintf("[%s%%%d]:%d", own, p.bridge.Attrs().Index, port), refusal)
			if err == nil {
				conn.Close()
				machine = own
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the machine does not answer at its own addresses %v", addresses)
		}
	}
	at := inside(t, l.Name, machine, port)
	for {
		switch err := dial(t, l.Name, "tcp6", at, refusal); {
		case err == nil:
			t.Fatalf("a container reaches the machine at %s", at)
		case errors.Is(err, context.DeadlineExceeded):
			return // it was sent, and dropped
		case time.Now().After(deadline): // the address takes a while to be usable
			t.Fatalf("nothing was sent to %s: %v", at, err)
		}
	}
}

func TestTheMetadataServiceIsNotReached(t *testing.T) {
	t.Parallel()
	p := newPool(t, t.Name(), 1)
	defer destroy(t, p)
	l := lease(t, p)
	outer := outside(t)
	metadata := netip.MustParseAddr("169.254.169.254")
	outer.answersAt(t, metadata, p.Subnet())

	if at := outer.at(metadata); dial(t, l.Name, "tcp4", at, refusal) == nil {
		t.Errorf("a container reaches %s", at)
	}
	if at := outer.at(outer.address); dial(t, l.Name, "tcp4", at, arrival) != nil {
		t.Errorf("a container does not reach the outside at %s", at)
	}
}

func TestALeaseThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newPool(t, t.Name(), 1)
	p.Close() // what is ready goes; from here on each lease makes its own
	if err := netlink.LinkDel(p.bridge); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := removeFirewall(p.bridge.Attrs().Name); err != nil {
			t.Error(err)
		}
	}()
	if l, err := p.Lease(t.Context()); err == nil {
		t.Fatalf("leased %+v on a bridge that is not there", l)
	}
	left, err := filepath.Glob(filepath.Join(namespaceDir, p.prefix()+"*"))
	if err != nil || len(left) != 0 {
		t.Errorf("namespaces are left: %v, %v", left, err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, "v"+strings.TrimPrefix(p.bridge.Attrs().Name, bridgePrefix)) {
			t.Errorf("the interface %s is left", link.Attrs().Name)
		}
	}
	if len(p.leased) != 0 || len(p.used) != 1 {
		t.Errorf("leased are %v, used %v: only the gateway's address is", p.leased, p.used)
	}
}
