package scenarios

import (
	"net/url"
	"strconv"
	"testing"

	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestNothingButTheDoorsListensBeyondTheMachine(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{Open: true})
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	if answer := a.visit("/"); answer.Status != 200 {
		t.Fatalf("the app answers %s", answer)
	}
	doors := map[uint16]string{}
	for _, address := range []string{s.API, s.Edge, s.EdgeTLS} {
		doors[port(t, address)] = address
	}
	inside := map[uint16]string{}
	for _, address := range []string{"http://" + s.Registry, s.NATS, s.Ops} {
		inside[port(t, address)] = address
	}
	listeners, err := s.Listeners()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range listeners {
		open := !l.Address.Addr().IsLoopback()
		if _, door := doors[l.Address.Port()]; open && !door {
			t.Errorf("process %d listens on %s", l.Pid, l.Address)
		}
		if open {
			delete(doors, l.Address.Port())
		} else {
			delete(inside, l.Address.Port())
		}
	}
	// What must be found was, so the rest would have been found too.
	if len(doors) != 0 || len(inside) != 0 {
		t.Errorf("of %v nothing was seen of the doors %v and of %v on loopback", listeners, doors, inside)
	}
}

func TestEveryServiceOfItsOwnListensOnLoopbackUnlessTold(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Processes, stack.Options{})
	listeners, err := s.Listeners()
	if err != nil {
		t.Fatal(err)
	}
	by := map[int]bool{}
	for _, l := range listeners {
		by[l.Pid] = true
		if !l.Address.Addr().IsLoopback() {
			t.Errorf("process %d listens on %s", l.Pid, l.Address)
		}
	}
	if len(by) < 8 {
		t.Errorf("only %d processes listen: %v", len(by), listeners)
	}
}

func port(t *testing.T, address string) uint16 {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	return uint16(number)
}
