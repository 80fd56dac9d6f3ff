package edges_test

import (
	"fmt"
	"testing"
	"time"

	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/services/gateway/edges"
)

func TestAnEdgeThatFallsSilentIsMissedForAWhile(t *testing.T) {
	t.Parallel()
	clock := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w := edges.New(nil, func() time.Time { return clock })
	want := func(when string, living, silent int) {
		t.Helper()
		if l, s := w.Edges(); l != living || s != silent {
			t.Errorf("%s: %d living and %d silent, want %d and %d", when, l, s, living, silent)
		}
	}
	hear := func(id string, closing bool) { w.Hear(&routingv1.EdgeApplied{EdgeId: id, Closing: closing}) }
	want("at first", 0, 0)
	hear("one", false)
	hear("two", false)
	want("both heard", 2, 0)
	clock = clock.Add(6 * time.Second)
	hear("one", false)
	want("one is cut off", 1, 1)
	hear("two", false)
	want("it is back", 2, 0)
	hear("two", true)
	want("one closed", 1, 0)
	clock = clock.Add(9 * time.Minute)
	want("all silent", 0, 1)
	clock = clock.Add(2 * time.Minute)
	want("long silent", 0, 0)
	for n := range 10_000 {
		hear(fmt.Sprint("made-up-", n), false)
	}
	if living, _ := w.Edges(); living > 4096 {
		t.Errorf("%d edges are remembered", living)
	}
}
