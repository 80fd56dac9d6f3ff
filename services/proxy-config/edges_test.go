package proxyconfig

import (
	"testing"
	"time"

	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

func TestWhatEveryLivingEdgeServes(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	e := newEdges(DefaultConfig(), func() time.Time { return now })
	hear := func(id string, revision uint64) { e.hear(&routingv1.EdgeApplied{EdgeId: id, Revision: revision}) }
	expect := func(when string, revision uint64, living int) {
		t.Helper()
		if r, n := e.applied(); r != revision || n != living {
			t.Errorf("%s: revision %d of %d edges, want %d of %d", when, r, n, revision, living)
		}
	}

	hear("a", 7)
	expect("before all had time to speak", 0, 0)
	now = now.Add(2 * time.Second)
	expect("then", 7, 1)
	hear("b", 5)
	expect("the slowest counts", 5, 2)
	hear("c", 0)
	expect("an edge without a table counts", 0, 3)
	e.hear(&routingv1.EdgeApplied{EdgeId: "c", Closing: true})
	expect("one that leaves does not", 5, 2)
	now = now.Add(4 * time.Second)
	hear("a", 9)
	now = now.Add(2 * time.Second)
	expect("nor one that fell silent", 9, 1)
	e.listenAgain()
	expect("after a lost line", 0, 0)
}

func TestOnlyNewsWakesTheWriter(t *testing.T) {
	t.Parallel()
	e := newEdges(DefaultConfig(), time.Now)
	for i, c := range []struct {
		ack  *routingv1.EdgeApplied
		news bool
	}{
		{&routingv1.EdgeApplied{EdgeId: "a", Revision: 1}, true},
		{&routingv1.EdgeApplied{EdgeId: "a", Revision: 1}, false},
		{&routingv1.EdgeApplied{EdgeId: "a", Revision: 2}, true},
		{&routingv1.EdgeApplied{EdgeId: "a", Closing: true}, true},
		{&routingv1.EdgeApplied{EdgeId: "a", Closing: true}, false},
	} {
		if e.hear(c.ack) != c.news {
			t.Errorf("acknowledgement %d: news is not %v", i, c.news)
		}
	}
}
