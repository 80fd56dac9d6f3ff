// Package cluster runs three real NATS servers, each in a network of its own, and
// takes them from each other while commands go on.
package cluster

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const bridge = "hub"

// network is a bridge in this process's network namespace, with a namespace for
// each server behind it. All of it goes with the process.
type network struct {
	home  netns.NsHandle
	hosts []netns.NsHandle
}

// address is where the server with that number is.
func address(n int) string { return fmt.Sprintf("10.77.0.%d", n+1) }

func port(n int) string { return fmt.Sprintf("port%d", n) }

// newNetwork must be called in a network namespace that nothing else uses.
func newNetwork(size int) (*network, error) {
	home, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("find the network namespace: %w", err)
	}
	w := &network{home: home}
	if err := up("lo"); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("make a bridge: %w", err)
	}
	if err := errors.Join(give(bridge, "10.77.0.254"), up(bridge)); err != nil {
		return nil, err
	}
	for n := range size {
		if err := w.addHost(n); err != nil {
			return nil, fmt.Errorf("make the network of server %d: %w", n, err)
		}
	}
	return w, nil
}

// close takes the network away; its processes have ended.
func (w *network) close() error {
	var failures []error
	for n := range w.hosts {
		link, err := netlink.LinkByName(port(n))
		if err == nil {
			err = netlink.LinkDel(link)
		}
		failures = append(failures, err, w.hosts[n].Close())
	}
	hub, err := netlink.LinkByName(bridge)
	if err == nil {
		err = netlink.LinkDel(hub)
	}
	return errors.Join(append(failures, err, w.home.Close())...)
}

func (w *network) addHost(n int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	host, err := netns.New() // and this thread is in it
	if err != nil {
		return err
	}
	w.hosts = append(w.hosts, host)
	if err := netns.Set(w.home); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = port(n)
	peer := fmt.Sprintf("peer%d", n)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer}); err != nil {
		return err
	}
	inside, err := netlink.LinkByName(peer)
	if err != nil {
		return err
	}
	hub, err := netlink.LinkByName(bridge)
	if err != nil {
		return err
	}
	outside, err := netlink.LinkByName(port(n))
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetNsFd(inside, int(host)), netlink.LinkSetMaster(outside, hub), netlink.LinkSetUp(outside)); err != nil {
		return err
	}
	return w.in(n, func() error { return errors.Join(up("lo"), give(peer, address(n)), up(peer)) })
}

// in does something in the network of that server.
func (w *network) in(n int, do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := netns.Set(w.hosts[n]); err != nil {
		return fmt.Errorf("enter the network of server %d: %w", n, err)
	}
	return errors.Join(do(), netns.Set(w.home))
}

// start starts a process in the network of that server.
func (w *network) start(n int, command *exec.Cmd) error { return w.in(n, command.Start) }

// cut takes the server's cable out; nobody is told.
func (w *network) cut(n int) error {
	link, err := netlink.LinkByName(port(n))
	if err != nil {
		return fmt.Errorf("cut server %d off: %w", n, err)
	}
	return netlink.LinkSetDown(link)
}

// mend puts it back.
func (w *network) mend(n int) error { return up(port(n)) }

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}

func give(name, ip string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("give %s an address: %w", name, err)
	}
	return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(24, 32)}})
}
