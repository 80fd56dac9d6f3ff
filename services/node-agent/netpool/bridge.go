package netpool

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const (
	forwardingFile = "/proc/sys/net/ipv4/ip_forward"
	// ipv6Settings has a directory for each interface of the reading thread's namespace.
	ipv6Settings = "/proc/sys/net/ipv6/conf"
)

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP.To4())
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr, ones), ok
}

func ipNet(addr netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, 32)}
}

// ensureBridge makes the bridge with the gateway's address, or takes the one there is.
func ensureBridge(name string, gateway netip.Addr, bits int) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return nil, fmt.Errorf("make the bridge %s: %w", name, err)
		}
		if link, err = netlink.LinkByName(name); err != nil {
			return nil, fmt.Errorf("find the bridge %s: %w", name, err)
		}
	case err != nil:
		return nil, fmt.Errorf("find the bridge %s: %w", name, err)
	}
	if err := keepHardwareAddress(link); err != nil {
		return nil, err
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(gateway, bits)}); err != nil {
		return nil, fmt.Errorf("give the bridge %s its address: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("bring the bridge %s up: %w", name, err)
	}
	if err := withoutIPv6(name); err != nil {
		return nil, err
	}
	if err := os.WriteFile(forwardingFile, []byte("1"), 0o644); err != nil {
		return nil, fmt.Errorf("let the kernel forward packets: %w", err)
	}
	return link, nil
}

// keepHardwareAddress sets the bridge's hardware address to the one it has. A bridge
// where nobody set it takes a port's, and another when that port goes: containers that
// know the old one then send what they answer to nobody.
func keepHardwareAddress(bridge netlink.Link) error {
	name, address := bridge.Attrs().Name, bridge.Attrs().HardwareAddr
	// Its last port took it along.
	if bytes.Equal(address, make([]byte, len(address))) {
		sum := sha256.Sum256([]byte(name))
		const local = 2 // IEEE 802: locally administered, and no group's
		address = append(net.HardwareAddr{local}, sum[:5]...)
	}
	if err := netlink.LinkSetHardwareAddr(bridge, address); err != nil {
		return fmt.Errorf("keep the hardware address of the bridge %s: %w", name, err)
	}
	return nil
}

// withoutIPv6 turns IPv6 off for those interfaces of the thread's network namespace;
// "all" are those there are and "default" those to come. Containers speak IPv4 only: the
// addresses that IPv6 gives every interface by itself are none that anybody chose.
func withoutIPv6(interfaces ...string) error {
	for _, name := range interfaces {
		err := os.WriteFile(filepath.Join(ipv6Settings, name, "disable_ipv6"), []byte("1"), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6 has no such file
			return fmt.Errorf("turn IPv6 off on %s: %w", name, err)
		}
	}
	return nil
}

// makeNamespace makes a named namespace with one interface on the bridge. On an
// error nothing of it is left.
func makeNamespace(name string, bridge netlink.Link, addr, gateway netip.Addr, bits int) (err error) {
	// A thread that entered another namespace must not be given to other goroutines;
	// it goes back before it is unlocked, or is thrown away with this goroutine.
	goruntime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		goruntime.UnlockOSThread()
		return fmt.Errorf("remember the own namespace: %w", err)
	}
	defer home.Close()
	outside := vethName(bridge.Attrs().Name, addr)
	made, err := netns.NewNamed(name)
	if err == nil {
		defer made.Close()
		defer func() {
			if err != nil {
				err = errors.Join(err, destroyNamespace(name, outside))
			}
		}()
		err = withoutIPv6("all", "default")
	}
	if backErr := netns.Set(home); backErr != nil {
		return fmt.Errorf("return to the own namespace: %w", errors.Join(err, backErr))
	}
	goruntime.UnlockOSThread()
	if err != nil {
		return fmt.Errorf("make the namespace %s: %w", name, err)
	}

	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = outside, bridge.Attrs().Index
	if err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(made)),
	}); err != nil {
		return fmt.Errorf("make the interface %s: %w", outside, err)
	}
	port, err := netlink.LinkByName(outside)
	if err != nil {
		return fmt.Errorf("find the interface %s: %w", outside, err)
	}
	// Isolated ports reach the bridge's own address but not each other.
	if err := netlink.LinkSetIsolated(port, true); err != nil {
		return fmt.Errorf("isolate the interface %s: %w", outside, err)
	}
	if err := netlink.LinkSetUp(port); err != nil {
		return fmt.Errorf("bring the interface %s up: %w", outside, err)
	}
	return configureInside(made, addr, gateway, bits)
}

func configureInside(ns netns.NsHandle, addr, gateway netip.Addr, bits int) error {
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("open the namespace: %w", err)
	}
	defer inside.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := inside.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s in the namespace: %w", name, err)
		}
		if name == "eth0" {
			if err := inside.AddrAdd(link, &netlink.Addr{IPNet: ipNet(addr, bits)}); err != nil {
				return fmt.Errorf("give the container its address: %w", err)
			}
		}
		if err := inside.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring %s up in the namespace: %w", name, err)
		}
	}
	if err := inside.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("give the container its default route: %w", err)
	}
	return nil
}

// destroyNamespace removes the namespace's interface and its name. The kernel drops
// the namespace itself later, when the last process in it has ended; the interface
// must not wait for that, or its address could not be used again.
func destroyNamespace(name, veth string) error {
	link, err := netlink.LinkByName(veth)
	switch {
	case err == nil:
		if err := netlink.LinkDel(link); err != nil {
			return fmt.Errorf("remove the interface %s: %w", veth, err)
		}
	case !errors.As(err, new(netlink.LinkNotFoundError)):
		return fmt.Errorf("find the interface %s: %w", veth, err)
	}
	if err := netns.DeleteNamed(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the namespace %s: %w", name, err)
	}
	return nil
}

// vethName is the bridge's name's hash with the address' last two bytes: unique on
// the machine and within 15 characters.
func vethName(bridge string, addr netip.Addr) string {
	b := addr.As4()
	return fmt.Sprintf("v%s%02x%02x", strings.TrimPrefix(bridge, bridgePrefix), b[2], b[3])
}
