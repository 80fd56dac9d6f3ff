package netpool

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// joinPort gives the bridge a port with that hardware address.
func joinPort(t *testing.T, p *Pool, name string, mac net.HardwareAddr) (port netlink.Link) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.HardwareAddr = name, p.bridge.Attrs().Index, mac
	port = &netlink.Veth{LinkAttrs: attrs, PeerName: name + "p"}
	if err := netlink.LinkAdd(port); err != nil {
		t.Fatalf("make a port: %v", err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(port) }) // gone already unless the test failed
	if err := netlink.LinkSetUp(port); err != nil {
		t.Fatalf("bring the port up: %v", err)
	}
	return port
}

func hardwareAddress(t *testing.T, p *Pool) string {
	t.Helper()
	bridge, err := netlink.LinkByIndex(p.bridge.Attrs().Index)
	if err != nil {
		t.Fatal(err)
	}
	return bridge.Attrs().HardwareAddr.String()
}

// A container sends to the hardware address that it knows of the machine. Were that
// another from one moment to the next, an app's last answer before it ends would be
// lost, and nobody would be left to send it again.
func TestTheMachineKeepsItsHardwareAddressWhilePortsComeAndGo(t *testing.T) {
	t.Parallel()
	p := newPool(t, "address", 1)
	defer destroy(t, p)
	l := lease(t, p)
	before := hardwareAddress(t, p)
	// Lower than any that the kernel gives: a bridge left alone takes it, and loses it
	// with the port.
	port := joinPort(t, p, vethName(p.bridge.Attrs().Name, p.gateway), net.HardwareAddr{2, 0, 0, 0, 0, 1})
	if now := hardwareAddress(t, p); now != before {
		t.Errorf("the machine was %s to its containers and is %s since a port came", before, now)
	}

	var listener net.Listener
	in(t, l.Name, func() (err error) {
		listener, err = net.Listen("tcp4", net.JoinHostPort(l.IP, "0"))
		return err
	})
	defer listener.Close()
	client, err := net.DialTimeout("tcp4", listener.Addr().String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	app, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()

	if err := netlink.LinkDel(port); err != nil {
		t.Fatal(err)
	}
	if now := hardwareAddress(t, p); now != before {
		t.Errorf("the machine was %s to its containers and is %s since a port went", before, now)
	}
	if _, err := app.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	// Sooner than the kernel finds out by itself that nobody has the old address.
	if err := client.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, len("answer"))
	if _, err := io.ReadFull(client, answer); err != nil {
		t.Errorf("the answer was lost when a port went: %v", err)
	}
}

func TestABridgeThatLostItsHardwareAddressGetsOne(t *testing.T) {
	t.Parallel()
	owner := fmt.Sprintf("unaddressed-%d", os.Getpid())
	attrs := netlink.NewLinkAttrs()
	attrs.Name = BridgeName(bridgePrefix, owner)
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(bridge) }) // gone already unless the test failed
	port := joinPort(t, &Pool{bridge: bridge}, attrs.Name+"x", net.HardwareAddr{2, 0, 0, 0, 0, 1})
	if err := netlink.LinkDel(port); err != nil {
		t.Fatal(err)
	}
	if is := hardwareAddress(t, &Pool{bridge: bridge}); is != "" {
		t.Fatalf("the bridge has the address %s: the story does not begin", is)
	}
	p := newPool(t, "unaddressed", 1)
	defer destroy(t, p)
	if is := hardwareAddress(t, p); is == "" {
		t.Error("the bridge has no address")
	}
}
