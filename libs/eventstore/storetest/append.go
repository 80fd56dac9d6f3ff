package storetest

import (
	"errors"
	"sync"
	"testing"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func appendInOrder(t *testing.T, s eventstore.Store) {
	a, b := deployment("d1"), deployment("d2")
	first := mustAppend(t, s, after(0, text(a, "e1", "one")))
	other := mustAppend(t, s, after(0, text(b, "e2", "another aggregate")))
	second := mustAppend(t, s, after(first, number(a, "e3", 2)))
	if first != 1 || other != 2 || second != 3 {
		t.Errorf("sequences %d, %d, %d; wanted 1, 2, 3", first, other, second)
	}
	wantIDs(t, mustLoad(t, s, a, 0), "e1", "e3")
	wantIDs(t, mustLoad(t, s, b, 0), "e2")
}

func refuseStale(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	_, err := s.Append(t.Context(), after(7, text(a, "e0", "from nowhere")))
	wantConflict(t, err)
	first := mustAppend(t, s, after(0, text(a, "e1", "")))
	_, err = s.Append(t.Context(), after(0, text(a, "e2", "first again")))
	wantConflict(t, err)
	second := mustAppend(t, s, after(first, number(a, "e3", 1)))
	_, err = s.Append(t.Context(), after(first, text(a, "e4", "stale")))
	wantConflict(t, err)
	_, err = s.Append(t.Context(), after(second+1, text(a, "e5", "ahead")))
	wantConflict(t, err)
	wantIDs(t, mustLoad(t, s, a, 0), "e1", "e3")
}

func oneOfTwoWins(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	last := uint64(0)
	for round := range 20 {
		sequences, errs := [2]uint64{}, [2]error{}
		var race sync.WaitGroup
		for i := range 2 {
			race.Go(func() {
				sequences[i], errs[i] = s.Append(t.Context(), after(last, number(a, eventID(round*2+i), int64(i))))
			})
		}
		race.Wait()
		winner, loser := 0, 1
		if errs[0] != nil {
			winner, loser = 1, 0
		}
		if errs[winner] != nil {
			t.Fatalf("round %d: nobody won: %v, %v", round, errs[0], errs[1])
		}
		wantConflict(t, errs[loser])
		last = sequences[winner]
	}
	if n := len(mustLoad(t, s, a, 0)); n != 20 {
		t.Errorf("%d events after 20 rounds", n)
	}
}

func sameDecisionOnce(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	first := mustAppend(t, s, after(0, text(a, "e1", "")))
	for _, expected := range []uint64{0, first} {
		again, err := s.Append(t.Context(), after(expected, text(a, "e1", "")))
		if again != first && !errors.Is(err, eventstore.ErrConflict) {
			t.Errorf("again after %d: sequence %d, error %v; wanted %d or ErrConflict", expected, again, err, first)
		}
	}
	_, err := s.AppendBatch(t.Context(), []eventstore.Expected{
		after(first, text(a, "e1", "")), after(0, text(deployment("d2"), "e2", "")),
	})
	wantConflict(t, err)
	wantIDs(t, mustLoad(t, s, a, 0), "e1")
	wantIDs(t, mustLoad(t, s, deployment("d2"), 0))
}

func sameFactOnce(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	first := mustRecord(t, s, text(a, "started-r1-i1", ""))
	mustRecord(t, s, text(a, "healthy-r1-i1", ""))
	if again := mustRecord(t, s, text(a, "started-r1-i1", "")); again != first {
		t.Errorf("the second time is sequence %d, wanted %d", again, first)
	}
	var race sync.WaitGroup
	for range 8 {
		race.Go(func() {
			if _, err := s.Record(t.Context(), text(a, "exited-r1-i1", "")); err != nil {
				t.Errorf("record: %v", err)
			}
		})
	}
	race.Wait()
	wantIDs(t, mustLoad(t, s, a, 0), "started-r1-i1", "healthy-r1-i1", "exited-r1-i1")
}

func idsPerAggregate(t *testing.T, s eventstore.Store) {
	mustRecord(t, s, text(deployment("d1"), "same", ""))
	mustRecord(t, s, text(deployment("d2"), "same", ""))
	if _, err := s.AppendBatch(t.Context(), []eventstore.Expected{
		after(0, text(deployment("d3"), "same", "")), after(0, text(deployment("d4"), "same", "")),
	}); err != nil {
		t.Errorf("a batch of one ID in two aggregates: %v", err)
	}
	for _, id := range []string{"d1", "d2", "d3", "d4"} {
		wantIDs(t, mustLoad(t, s, deployment(id), 0), "same")
	}
}

func factsMoveOn(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	first := mustAppend(t, s, after(0, text(a, "e1", "")))
	fact := mustRecord(t, s, number(a, "fact", 1))
	_, err := s.Append(t.Context(), after(first, text(a, "e2", "")))
	wantConflict(t, err)
	mustAppend(t, s, after(fact, text(a, "e3", "")))
	wantIDs(t, mustLoad(t, s, a, 0), "e1", "fact", "e3")
}

func batchWhole(t *testing.T, s eventstore.Store) {
	a, claim := deployment("d1"), subjects.Of(subjects.Platform, subjects.Claim, "subdomain-web")
	first := mustAppend(t, s, after(0, text(a, "e1", "")))
	last, err := s.AppendBatch(t.Context(), []eventstore.Expected{
		after(first, number(a, "e2", 1)), after(0, text(claim, "e3", "taken")), after(0, text(deployment("d2"), "e4", "")),
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != first+3 {
		t.Errorf("the batch ended at %d, wanted %d", last, first+3)
	}
	wantIDs(t, follow(t, s, 0, subjects.AllEvents).wait(4), "e1", "e2", "e3", "e4")
	mustAppend(t, s, after(last-1, text(claim, "e5", "released")))
	wantIDs(t, mustLoad(t, s, claim, 0), "e3", "e5")
}

func batchNothing(t *testing.T, s eventstore.Store) {
	a, claim := deployment("d1"), subjects.Of(subjects.Platform, subjects.Claim, "subdomain-web")
	taken := mustAppend(t, s, after(0, text(claim, "theirs", "taken")))
	for _, batch := range [][]eventstore.Expected{
		{after(0, text(a, "e1", "")), after(0, text(claim, "e2", "taken"))},
		{after(0, text(claim, "e2", "taken")), after(0, text(a, "e1", ""))},
		{after(0, text(a, "e1", "")), after(taken+1, text(claim, "e2", "taken"))},
	} {
		_, err := s.AppendBatch(t.Context(), batch)
		wantConflict(t, err)
	}
	wantIDs(t, mustLoad(t, s, a, 0))
	wantIDs(t, mustLoad(t, s, claim, 0), "theirs")
	if last, err := s.LastSequence(t.Context(), subjects.AllEvents); err != nil || last != taken {
		t.Errorf("the log ends at %d (%v), wanted %d", last, err, taken)
	}
	// Nor is anything of it remembered: the same events may come again.
	if _, err := s.AppendBatch(t.Context(), []eventstore.Expected{
		after(0, text(a, "e1", "")), after(taken, text(claim, "e2", "taken")),
	}); err != nil {
		t.Errorf("the same batch with the right expectation: %v", err)
	}
}

func batchOfOne(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	sequence, err := s.AppendBatch(t.Context(), []eventstore.Expected{after(0, text(a, "e1", ""))})
	if err != nil || sequence != 1 {
		t.Errorf("sequence %d, error %v; wanted 1", sequence, err)
	}
	_, err = s.AppendBatch(t.Context(), []eventstore.Expected{after(0, text(a, "e2", ""))})
	wantConflict(t, err)
	wantIDs(t, mustLoad(t, s, a, 0), "e1")
}

func batchRefused(t *testing.T, s eventstore.Store) {
	if _, err := s.AppendBatch(t.Context(), nil); err == nil {
		t.Error("an empty batch was written")
	}
	a := deployment("d1")
	if _, err := s.AppendBatch(t.Context(), []eventstore.Expected{after(0, text(a, "e1", "")), after(0, text(a, "e2", ""))}); err == nil {
		t.Error("a batch with two events of one aggregate was written")
	}
	wantIDs(t, mustLoad(t, s, a, 0))
}

func loadAfter(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	wantIDs(t, mustLoad(t, s, a, 0))
	mustRecord(t, s, text(a, "e1", ""))
	mustRecord(t, s, text(deployment("d10"), "e2", "a longer name"))
	third := mustRecord(t, s, number(a, "e3", 3))
	mustRecord(t, s, text(subjects.Of("other", subjects.Deployment, "d1"), "e4", "another org"))
	fifth := mustRecord(t, s, text(a, "e5", ""))
	wantIDs(t, mustLoad(t, s, a, 0), "e1", "e3", "e5")
	wantIDs(t, mustLoad(t, s, a, third-1), "e3", "e5")
	wantIDs(t, mustLoad(t, s, a, third), "e5")
	wantIDs(t, mustLoad(t, s, a, fifth))
	wantIDs(t, mustLoad(t, s, a, fifth+100))
}

func loadLong(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	const n = 600
	var want []string
	for i := range n {
		mustRecord(t, s, number(a, eventID(i), int64(i)))
		want = append(want, eventID(i))
	}
	wantIDs(t, mustLoad(t, s, a, 0), want...)
}

func loadUnknown(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	mustRecord(t, s, text(a, "e1", ""))
	mustRecord(t, s, stranger(t, a, "e2"))
	events := mustLoad(t, s, a, 0)
	wantIDs(t, events, "e1", "e2")
	if !events[0].Readable() || events[1].Readable() {
		t.Errorf("readable: %v and %v, wanted only the first", events[0].Readable(), events[1].Readable())
	}
}

func lastSequence(t *testing.T, s eventstore.Store) {
	want := func(filter string, sequence uint64) {
		t.Helper()
		got, err := s.LastSequence(t.Context(), filter)
		if err != nil || got != sequence {
			t.Errorf("last of %s is %d (%v), wanted %d", filter, got, err, sequence)
		}
	}
	want(subjects.AllEvents, 0)
	mustRecord(t, s, text(deployment("d1"), "e1", ""))
	mustRecord(t, s, number(deployment("d2"), "e2", 1))
	mustRecord(t, s, text(subjects.Of("other", subjects.Operator, "o1"), "e3", ""))
	want(subjects.AllEvents, 3)
	want(deployment("d1").Filter(), 1)
	want(subjects.KindFilter(subjects.Deployment), 2)
	want(subjects.OrgFilter("other", subjects.Operator), 3)
	want("evt.*.*.*.Int64Value", 2)
	want(deployment("d3").Filter(), 0)
}
