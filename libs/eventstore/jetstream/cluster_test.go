package jetstream_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/internal/natstest"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// In a cluster any replica may answer a read, and one may lag behind.
func TestWhatOneServerAcknowledgedIsLoadedFromEveryOther(t *testing.T) {
	t.Parallel()
	var stores []eventstore.Store
	for _, js := range natstest.Cluster(t) {
		stores = append(stores, open(js))
	}
	followers := []*collector{collect(t, stores[0]), collect(t, stores[1]), collect(t, stores[2])}
	const events = 150
	last := uint64(0)
	for n := 1; n <= events; n++ {
		var err error
		if last, err = stores[n%3].Append(t.Context(), eventstore.Expected{Event: number(n), LastSequence: last}); err != nil {
			t.Fatalf("append %d: %v", n, err)
		}
		for i, s := range stores {
			got, err := s.Load(t.Context(), aggregate, 0)
			if err != nil || len(got) != n {
				t.Fatalf("server %d loads %d events of %d: %v", i, len(got), n, err)
			}
			inOrder := slices.IsSortedFunc(got, func(a, b eventstore.Recorded) int { return int(a.Sequence) - int(b.Sequence) })
			if !inOrder || got[n-1].ID != fmt.Sprintf("e%d", n) {
				t.Fatalf("server %d ends with %s", i, got[n-1].ID)
			}
		}
	}
	if _, err := stores[1].AppendBatch(t.Context(), []eventstore.Expected{
		{Event: number(events + 1), LastSequence: last},
		{Event: eventstore.Event{Aggregate: subjects.Of(subjects.Platform, subjects.Claim, "c"), ID: "c", Payload: number(1).Payload, Time: number(1).Time}},
	}); err != nil {
		t.Fatalf("append a batch: %v", err)
	}
	for _, c := range followers {
		c.waitEach(t, events+2)
	}
}
