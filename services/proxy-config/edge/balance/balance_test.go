package balance_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/balance"
)

// world is a pool with a clock of its own.
type world struct {
	*balance.Pool
	clock    time.Time
	ejected  []balance.Ejection
	settings balance.Settings
}

func newWorld() *world {
	w := &world{
		clock:    time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		settings: balance.Settings{InARow: 3, Burst: 10, Window: 10 * time.Second, For: 10 * time.Second},
	}
	w.Pool = balance.New(w.settings, func() time.Time { return w.clock }, func(e balance.Ejection) { w.ejected = append(w.ejected, e) })
	return w
}

func route(n int) *routingv1.Route {
	r := &routingv1.Route{Host: "shop.test", State: routingv1.RouteState_ROUTE_STATE_SERVING}
	for i := range n {
		r.Upstreams = append(r.Upstreams, &routingv1.Upstream{InstanceId: fmt.Sprintf("i%d", i), Address: fmt.Sprintf("10.0.0.%d:80", i)})
	}
	return r
}

// find takes until it gets that instance, and gives the others back.
func (w *world) find(t *testing.T, r *routingv1.Route, id string) *balance.Instance {
	t.Helper()
	for range 10_000 {
		i := w.Take(r, nil, "")
		i.Done()
		if i.ID == id {
			return i
		}
	}
	t.Fatalf("%s is never chosen", id)
	return nil
}

func TestARequestGoesToTheInstanceWithTheFewestUnderWay(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), route(3)
	for n := range 30 {
		w.Take(r, nil, "")
		want := (n + 3) / 3
		for _, i := range distinct(w, r) {
			if i.UnderWay() > want {
				t.Fatalf("after %d requests %s has %d", n+1, i.ID, i.UnderWay())
			}
		}
	}
}

func distinct(w *world, r *routingv1.Route) []*balance.Instance {
	seen := map[string]*balance.Instance{}
	for range 200 {
		i := w.Take(r, nil, "")
		i.Done()
		seen[i.ID] = i
	}
	var all []*balance.Instance
	for _, i := range seen {
		all = append(all, i)
	}
	return all
}

func TestEqualsAreChosenEquallyOften(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), route(3)
	count := map[string]int{}
	const requests = 30_000
	for range requests {
		i := w.Take(r, nil, "")
		i.Done()
		count[i.ID]++
	}
	for id, n := range count {
		// Six standard deviations of a binomial with p = 1/3.
		if n < requests/3-490 || n > requests/3+490 {
			t.Errorf("%s was chosen %d times of %d", id, n, requests)
		}
	}
	if len(count) != 3 {
		t.Errorf("only %v were chosen", count)
	}
}

func TestAnInstanceThatFailsInARowIsPassedOverForAWhile(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), route(2)
	bad := w.find(t, r, "i0")
	for range 2 {
		w.Found(bad, r, balance.Unreachable)
	}
	w.Found(bad, r, balance.Answered)
	w.Found(bad, r, balance.BrokenOff)
	w.Found(bad, r, balance.TimedOut)
	if len(w.ejected) != 0 {
		t.Fatalf("ejected although it answered in between: %+v", w.ejected)
	}
	w.Found(bad, r, balance.Unreachable)
	if len(w.ejected) != 1 || w.ejected[0].Instance != bad || w.Ejected() != 1 {
		t.Fatalf("three in a row: %+v", w.ejected)
	}
	for range 100 {
		if i := w.Take(r, nil, ""); i == bad {
			t.Fatal("it is chosen all the same")
		} else {
			i.Done()
		}
	}
	w.clock = w.clock.Add(w.settings.For + time.Millisecond)
	w.find(t, r, "i0")
	w.Found(bad, r, balance.Unreachable)
	if len(w.ejected) != 2 {
		t.Error("back from it, a failure does not eject it at once")
	}
	if got := w.ejected[1].Until.Sub(w.clock); got != 2*w.settings.For {
		t.Errorf("the second time lasts %s", got)
	}
	for range 50 {
		w.clock = w.clock.Add(time.Hour)
		w.Found(bad, r, balance.Unreachable)
	}
	if got := w.ejected[len(w.ejected)-1].Until.Sub(w.clock); got != 6*w.settings.For {
		t.Errorf("the longest lasts %s", got)
	}
}

func TestTheLastInstanceIsNeverEjected(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), route(2)
	one, other := w.find(t, r, "i0"), w.find(t, r, "i1")
	for range 10 {
		w.Found(one, r, balance.Unreachable)
		w.Found(other, r, balance.Unreachable)
	}
	if len(w.ejected) != 1 {
		t.Errorf("%d of 2 instances were ejected", len(w.ejected))
	}
	alone := newWorld()
	last := alone.find(t, route(1), "i0")
	for range 100 {
		alone.Found(last, route(1), balance.Unreachable)
	}
	if len(alone.ejected) != 0 {
		t.Error("the only instance was ejected")
	}
}

func TestServerErrorsEjectOutliersOnly(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), route(3)
	bad, good := w.find(t, r, "i0"), w.find(t, r, "i1")
	for range 20 {
		w.Found(good, r, balance.Answered)
	}
	for range 9 {
		w.Found(bad, r, balance.ServerError)
	}
	if len(w.ejected) != 0 {
		t.Fatal("ejected before the burst")
	}
	w.Found(bad, r, balance.ServerError)
	if len(w.ejected) != 1 {
		t.Fatal("an outlier is not ejected")
	}

	// One address that fails everywhere must not take the app down to one instance.
	all := newWorld()
	for n := range 300 {
		all.Found(all.find(t, r, fmt.Sprintf("i%d", n%3)), r, balance.ServerError)
	}
	if len(all.ejected) > 0 {
		t.Errorf("%d instances were ejected for what they have in common", len(all.ejected))
	}

	// Errors that are long ago do not count.
	slow := newWorld()
	rare := slow.find(t, r, "i0")
	for range 100 {
		slow.clock = slow.clock.Add(2 * time.Second)
		slow.Found(rare, r, balance.ServerError)
	}
	if len(slow.ejected) != 0 {
		t.Error("one error in two seconds was taken for a burst")
	}
}

func TestAClientKeepsItsInstanceWhileThatServes(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), route(3)
	mine := w.find(t, r, "i2")
	for range 100 {
		if i := w.Take(r, nil, mine.Token); i != mine {
			t.Fatal("another one, although mine has the most requests only because they are mine")
		}
	}
	if i := w.Take(r, []*balance.Instance{mine}, mine.Token); i == mine {
		t.Error("the attempt after a failure goes to the same one")
	}
	for range 3 {
		w.Found(mine, r, balance.Unreachable)
	}
	if i := w.Take(r, nil, mine.Token); i == mine {
		t.Error("it is ejected, and chosen all the same")
	}
	if i := w.Take(route(2), nil, mine.Token); i == nil {
		t.Error("gone, and nothing else is chosen")
	}
}

func TestTheAttemptAfterAFailureGoesElsewhereWhereItCan(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), route(2)
	first := w.find(t, r, "i0")
	for range 50 {
		i := w.Take(r, []*balance.Instance{first}, "")
		i.Done()
		if i == first {
			t.Fatal("the same instance again")
		}
	}
	three := route(3)
	for range 50 {
		var tried []*balance.Instance
		for range 3 {
			i := w.Take(three, tried, "")
			i.Done()
			if slices.Contains(tried, i) {
				t.Fatal("one was tried twice before another was tried once")
			}
			tried = append(tried, i)
		}
	}
	only := newWorld()
	one := only.find(t, route(1), "i0")
	if only.Take(route(1), []*balance.Instance{one}, "") != one {
		t.Error("the only instance is not tried again")
	}
	if only.Take(&routingv1.Route{}, nil, "") != nil {
		t.Error("an instance of none")
	}
}

func TestInstancesThatNobodyAsksForAreForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld()
	for n := range 20_000 {
		w.clock = w.clock.Add(time.Second)
		r := &routingv1.Route{Upstreams: []*routingv1.Upstream{{InstanceId: fmt.Sprint(n), Address: "10.0.0.1:80"}}}
		w.Take(r, nil, "").Done()
	}
	if n := w.Known(); n > 4096 {
		t.Errorf("%d are remembered", n)
	}
}

func TestCountsHoldUnderManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	r := route(3)
	p := balance.New(balance.Settings{InARow: 3, Burst: 10, Window: time.Second, For: time.Second}, time.Now, func(balance.Ejection) {})
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for n := range 2000 {
				i := p.Take(r, nil, "")
				p.Found(i, r, balance.Outcome(n%5))
				i.Done()
			}
		})
	}
	all.Wait()
	for range 100 {
		i := p.Take(r, nil, "")
		i.Done()
		if i.UnderWay() != 0 {
			t.Fatalf("%s has %d under way at rest", i.ID, i.UnderWay())
		}
	}
}
