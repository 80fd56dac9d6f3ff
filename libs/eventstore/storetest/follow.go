package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func record(t *testing.T, s eventstore.Store, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		mustRecord(t, s, number(deployment("d1"), eventID(i), int64(i)))
	}
}

func eventIDs(from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, eventID(i))
	}
	return out
}

func followAll(t *testing.T, s eventstore.Store) {
	record(t, s, 1, 20)
	f := follow(t, s, 0, subjects.AllEvents)
	wantIDs(t, f.wait(20), eventIDs(1, 20)...)
	f.end()
	for i, e := range f.wait(20) {
		if e.Sequence != uint64(i)+1 {
			t.Errorf("event %d has sequence %d", i+1, e.Sequence)
		}
	}
}

func followMiddle(t *testing.T, s eventstore.Store) {
	record(t, s, 1, 20)
	wantIDs(t, follow(t, s, 13, subjects.AllEvents).wait(7), eventIDs(14, 20)...)
}

func followFilters(t *testing.T, s eventstore.Store) {
	a, b := deployment("d1"), subjects.Of("other", subjects.Operator, "o1")
	mustRecord(t, s, text(a, "e1", ""))
	mustRecord(t, s, text(b, "e2", ""))
	mustRecord(t, s, number(a, "e3", 1))
	mustRecord(t, s, text(subjects.Of("other", subjects.Claim, "c1"), "e4", "nobody asked for it"))
	mustRecord(t, s, number(b, "e5", 1))
	both := follow(t, s, 0, subjects.KindFilter(subjects.Operator), subjects.KindFilter(subjects.Deployment))
	oneType := follow(t, s, 0, "evt.*.*.*.Int64Value")
	mustRecord(t, s, text(a, "e6", ""))
	mustRecord(t, s, number(b, "e7", 2))
	wantIDs(t, both.wait(6), "e1", "e2", "e3", "e5", "e6", "e7")
	wantIDs(t, oneType.wait(3), "e3", "e5", "e7")
}

func followOverlap(t *testing.T, s eventstore.Store) {
	record(t, s, 1, 3)
	for _, filters := range [][]string{
		{subjects.AllEvents, subjects.AllEvents},
		{subjects.KindFilter(subjects.Deployment), subjects.AllEvents, subjects.KindFilter(subjects.Deployment)},
		{subjects.OrgFilter("acme", subjects.Deployment), subjects.AnyOrg(subjects.Deployment, "d1")},
		{deployment("d1").Filter(), "evt.acme.*.*.Int64Value"},
	} {
		f := follow(t, s, 0, filters...)
		f.waitCaughtUp()
		if n := len(f.wait(3)); n != 3 {
			t.Errorf("%v: %d events, wanted 3", filters, n)
		}
	}
}

func followBatches(t *testing.T, s eventstore.Store) {
	const n = 1100
	var writers sync.WaitGroup
	for w := range 10 {
		writers.Go(func() {
			for i := range n / 10 {
				if _, err := s.Record(t.Context(), number(deployment("d1"), eventID(w*n/10+i), 0)); err != nil {
					t.Errorf("record: %v", err)
				}
			}
		})
	}
	writers.Wait()
	f := follow(t, s, 0, subjects.AllEvents)
	f.wait(n)
	f.end()
	if most := slices.Max(f.batches); most > 500 {
		t.Errorf("a batch of %d events, wanted 500 at most", most)
	}
	if len(f.batches) > 50 {
		t.Errorf("%d events came in %d batches: hardly batches at all", n, len(f.batches))
	}
}

func followLive(t *testing.T, s eventstore.Store) {
	record(t, s, 1, 3)
	f := follow(t, s, 0, subjects.AllEvents)
	f.wait(3)
	for i := 4; i <= 10; i++ {
		record(t, s, i, i)
		wantIDs(t, f.wait(i), eventIDs(1, i)...)
	}
}

func followCaughtUp(t *testing.T, s eventstore.Store) {
	record(t, s, 1, 600)
	f := follow(t, s, 10, subjects.AllEvents)
	if n := f.waitCaughtUp(); n < 590 {
		t.Errorf("it had caught up after %d events, wanted 590", n)
	}
	record(t, s, 601, 610)
	f.wait(600)
	f.end()
	if len(f.caughtUp) > 0 {
		t.Error("it caught up more than once")
	}
}

func followEmpty(t *testing.T, s eventstore.Store) {
	f := follow(t, s, 0, subjects.AllEvents)
	if n := f.waitCaughtUp(); n != 0 {
		t.Errorf("it caught up after %d events", n)
	}
	record(t, s, 1, 1)
	wantIDs(t, f.wait(1), eventID(1))
}

func followEnd(t *testing.T, s eventstore.Store) {
	record(t, s, 1, 5)
	mustRecord(t, s, text(subjects.Of("other", subjects.Claim, "c1"), "nobody asked for it", ""))
	f := follow(t, s, 5, subjects.KindFilter(subjects.Deployment))
	if n := f.waitCaughtUp(); n != 0 {
		t.Errorf("it caught up after %d events", n)
	}
	record(t, s, 6, 6)
	wantIDs(t, f.wait(1), eventID(6))
}

func followFails(t *testing.T, s eventstore.Store) {
	record(t, s, 1, 5)
	broken := errors.New("the handler is broken")
	calls := 0
	err := s.Follow(t.Context(), 0, func(context.Context, []eventstore.Recorded) error {
		calls++
		return broken
	}, nil, subjects.AllEvents)
	if !errors.Is(err, broken) || calls != 1 {
		t.Errorf("follow returned %v after %d calls, wanted the handler's error after 1", err, calls)
	}
}

func followInterrupted(t *testing.T, s eventstore.Store) {
	record(t, s, 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Follow(ctx, 0, func(ctx context.Context, _ []eventstore.Recorded) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}, nil, subjects.AllEvents)
	if err != nil {
		t.Errorf("follow returned %v, wanted nil", err)
	}
}

func followUnknown(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	mustRecord(t, s, stranger(t, a, "s1"))
	mustRecord(t, s, text(a, "e1", ""))
	mustRecord(t, s, stranger(t, a, "s2"))
	f := follow(t, s, 0, subjects.AllEvents)
	if n := f.waitCaughtUp(); n != 3 {
		t.Errorf("it caught up after %d events, wanted 3", n)
	}
	mustRecord(t, s, text(a, "e2", ""))
	events := f.wait(4)
	wantIDs(t, events, "s1", "e1", "s2", "e2")
	if events[0].Readable() || !events[1].Readable() {
		t.Error("the wrong one is said to be readable")
	}
	if counter, ok := s.(interface{ Skipped() uint64 }); !ok || counter.Skipped() != 2 {
		t.Errorf("the store does not say that it could not read 2 events")
	}
}

func followNothing(t *testing.T, s eventstore.Store) {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := s.Follow(ctx, 0, func(context.Context, []eventstore.Recorded) error { return nil }, nil); err == nil {
		t.Error("following without a filter is no error")
	}
}

func followersAgree(t *testing.T, s eventstore.Store) {
	const writers, each = 6, 40
	early := follow(t, s, 0, subjects.AllEvents)
	var race sync.WaitGroup
	for w := range writers {
		race.Go(func() {
			for i := range each {
				if _, err := s.Record(t.Context(), number(deployment(eventID(w)), eventID(i), 0)); err != nil {
					t.Errorf("record: %v", err)
				}
			}
		})
	}
	middle := follow(t, s, 0, subjects.AllEvents)
	race.Wait()
	late := follow(t, s, 0, subjects.AllEvents)
	want := places(late.wait(writers * each))
	for name, f := range map[string]*following{"early": early, "middle": middle} {
		if diff := cmp.Diff(want, places(f.wait(writers*each))); diff != "" {
			t.Errorf("the %s follower, - the late one + this one:\n%s", name, diff)
		}
	}
}

func places(events []eventstore.Recorded) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.Aggregate.ID+"/"+e.ID)
	}
	return out
}

func ownCopy(t *testing.T, s eventstore.Store) {
	a := deployment("d1")
	payload := wrapperspb.String("as written")
	mustRecord(t, s, eventstore.Event{Aggregate: a, ID: "e1", Payload: payload, Time: time.Unix(0, 0)})
	payload.Value = "changed by the writer"
	mustLoad(t, s, a, 0)[0].Payload.(*wrapperspb.StringValue).Value = "changed by a reader"
	if got := mustLoad(t, s, a, 0)[0].Payload.(*wrapperspb.StringValue).Value; got != "as written" {
		t.Errorf("the event says %q", got)
	}
}
