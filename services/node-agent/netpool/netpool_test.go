package netpool

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

func newPool(t *testing.T, owner string, size int) *Pool {
	t.Helper()
	// The process's own: another checkout's tests may run on this machine.
	owner = fmt.Sprintf("%s-%d", owner, os.Getpid())
	p, err := New(Config{Owner: owner, Size: size}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatalf("the pool needs root and a kernel with bridges and nftables: %v", err)
	}
	return p
}

func destroy(t *testing.T, p *Pool) {
	t.Helper()
	p.Retain(nil, time.Now().Add(time.Hour))
	if err := p.Destroy(); err != nil {
		t.Error(err)
	}
}

func lease(t *testing.T, p *Pool) Lease {
	t.Helper()
	l, err := p.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// in runs do on a thread inside the namespace; the thread is thrown away after.
func in(t *testing.T, name string, do func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		ns, err := netns.GetFromName(name)
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	if err := <-done; err != nil {
		t.Fatalf("in %s: %v", name, err)
	}
}

func TestANamespaceReachesOutwardUnderTheMachinesAddress(t *testing.T) {
	t.Parallel()
	p := newPool(t, t.Name(), 2)
	defer destroy(t, p)
	outer := outside(t)
	l := lease(t, p)
	in(t, l.Name, func() error {
		conn, err := net.DialTimeout("tcp4", outer.at(outer.address), arrival)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	conn, err := outer.listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if from := conn.RemoteAddr().(*net.TCPAddr).IP.String(); from != outer.machine.String() {
		t.Fatalf("it came from %s", from)
	}
}

func TestLeasesAreDistinctAndGoWhenReleased(t *testing.T) {
	t.Parallel()
	p := newPool(t, t.Name(), 2)
	defer destroy(t, p)
	seen := map[string]bool{}
	for range 6 { // more than are ready
		l := lease(t, p)
		if seen[l.IP] || seen[l.Name] {
			t.Fatalf("%+v was leased already", l)
		}
		seen[l.IP], seen[l.Name] = true, true
		if _, err := os.Stat(l.Path); err != nil {
			t.Fatal(err)
		}
	}
	l := lease(t, p)
	p.Release(l.Name)
	p.Release(l.Name)
	waitGone(t, l.Path)
}

func TestWhatAnEarlierProcessLeftIsKeptOrDestroyed(t *testing.T) {
	t.Parallel()
	first := newPool(t, t.Name(), 1)
	kept, lost := lease(t, first), lease(t, first)
	first.Close()

	second := newPool(t, t.Name(), 1)
	defer destroy(t, second)
	if second.Subnet() != first.Subnet() {
		t.Fatalf("the subnet moved from %v to %v", first.Subnet(), second.Subnet())
	}
	second.Retain(map[string]bool{kept.Name: true}, time.Now().Add(-time.Minute))
	waitGone(t, lost.Path)
	if _, err := os.Stat(kept.Path); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if l := lease(t, second); l.IP == kept.IP {
			t.Fatalf("%s was given twice", l.IP)
		}
	}
}

func waitGone(t *testing.T, path string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", path)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestTwoOwnersHaveDifferentNetworks(t *testing.T) {
	t.Parallel()
	one, two := newPool(t, "owner one", 1), newPool(t, "owner two", 1)
	defer destroy(t, one)
	defer destroy(t, two)
	if one.Subnet().Overlaps(two.Subnet()) {
		t.Fatalf("%v overlaps %v", one.Subnet(), two.Subnet())
	}
	target := lease(t, two)
	var listener net.Listener
	in(t, target.Name, func() (err error) {
		listener, err = net.Listen("tcp4", target.IP+":0")
		return err
	})
	defer listener.Close()
	in(t, lease(t, one).Name, func() error {
		conn, err := net.DialTimeout("tcp4", listener.Addr().String(), time.Second)
		if err == nil {
			conn.Close()
			t.Error("one owner's container reaches another's")
		}
		return nil
	})
}
