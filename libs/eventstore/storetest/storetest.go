// Package storetest is the contract of an event log: every implementation passes
// the same suite.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// deadline is how long a test waits for what must come.
const deadline = 10 * time.Second

// Run checks a store. open returns an empty one, of its own, on each call.
func Run(t *testing.T, open func(*testing.T) eventstore.Store) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, eventstore.Store){
		"a decision is appended after the one it was made from":        appendInOrder,
		"a decision made from an old state is refused":                 refuseStale,
		"of two who decide at once exactly one wins":                   oneOfTwoWins,
		"the same decision again is not written twice":                 sameDecisionOnce,
		"a fact seen twice is recorded once":                           sameFactOnce,
		"the same ID means another event in another aggregate":         idsPerAggregate,
		"facts need no expectation and move decisions on":              factsMoveOn,
		"a batch is written whole":                                     batchWhole,
		"a conflict anywhere leaves nothing of a batch":                batchNothing,
		"a batch of one is an append":                                  batchOfOne,
		"a batch may not be empty or hold an aggregate twice":          batchRefused,
		"an aggregate without a proper name is refused":                badNames,
		"all that was said of an event comes back":                     roundTrip,
		"load gives one aggregate's events behind a sequence":          loadAfter,
		"load gives long histories whole":                              loadLong,
		"load keeps the place of a type that is not known":             loadUnknown,
		"the last sequence is that of a filter":                        lastSequence,
		"a call whose context has ended is not available":              endedContext,
		"follow from the beginning":                                    followAll,
		"follow from the middle":                                       followMiddle,
		"follow several filters in one order":                          followFilters,
		"follow hands over once what several filters match":            followOverlap,
		"follow in batches of at most 500":                             followBatches,
		"follow goes on with new events":                               followLive,
		"follow says when it has caught up":                            followCaughtUp,
		"follow of an empty log has caught up at once":                 followEmpty,
		"follow that begins at the end has caught up at once":          followEnd,
		"follow stops when its handler fails":                          followFails,
		"follow keeps the place of types that are not known":           followUnknown,
		"follow of nothing is refused":                                 followNothing,
		"two followers see the same order while many write":            followersAgree,
		"a follower's event belongs to it alone":                       ownCopy,
		"a handler that the end of the context interrupts is no error": followInterrupted,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func deployment(id string) subjects.Aggregate { return subjects.Of("acme", subjects.Deployment, id) }

func text(a subjects.Aggregate, id, value string) eventstore.Event {
	return eventstore.Event{Aggregate: a, ID: id, Payload: wrapperspb.String(value), Time: start, Source: "storetest"}
}

func number(a subjects.Aggregate, id string, value int64) eventstore.Event {
	return eventstore.Event{Aggregate: a, ID: id, Payload: wrapperspb.Int64(value), Time: start, Source: "storetest"}
}

func after(sequence uint64, e eventstore.Event) eventstore.Expected {
	return eventstore.Expected{Event: e, LastSequence: sequence}
}

func mustAppend(t *testing.T, s eventstore.Store, e eventstore.Expected) uint64 {
	t.Helper()
	sequence, err := s.Append(t.Context(), e)
	if err != nil {
		t.Fatalf("append %s: %v", e.ID, err)
	}
	return sequence
}

func mustRecord(t *testing.T, s eventstore.Store, e eventstore.Event) uint64 {
	t.Helper()
	sequence, err := s.Record(t.Context(), e)
	if err != nil {
		t.Fatalf("record %s: %v", e.ID, err)
	}
	return sequence
}

func mustLoad(t *testing.T, s eventstore.Store, a subjects.Aggregate, after uint64) []eventstore.Recorded {
	t.Helper()
	events, err := s.Load(t.Context(), a, after)
	if err != nil {
		t.Fatalf("load %s: %v", a, err)
	}
	return events
}

func wantIDs(t *testing.T, got []eventstore.Recorded, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, ids(got)); diff != "" {
		t.Errorf("events, - wanted + got:\n%s", diff)
	}
}

func ids(events []eventstore.Recorded) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.ID)
	}
	return out
}

func wantConflict(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, eventstore.ErrConflict) {
		t.Errorf("the error is %v, wanted ErrConflict", err)
	}
}

func roundTrip(t *testing.T, s eventstore.Store) {
	details, err := structpb.NewStruct(map[string]any{"host": "web.apps.localhost", "ports": []any{80.0, 443.0}})
	if err != nil {
		t.Fatal(err)
	}
	want := eventstore.Event{
		Aggregate: deployment("d1"), ID: "0198-aa/with spaces: and colons", Payload: details,
		Time:   start.In(time.FixedZone("elsewhere", 5*3600)),
		Source: "node-agent/n1", Actor: "operator-7", Causation: "command-1", Correlation: "request-1",
		TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	sequence := mustAppend(t, s, after(0, want))
	bare := eventstore.Event{Aggregate: deployment("d1"), ID: "bare", Payload: &wrapperspb.StringValue{}, Time: start}
	mustRecord(t, s, bare)

	want.Time = start
	wanted := []eventstore.Recorded{{Event: want, Sequence: sequence}, {Event: bare, Sequence: sequence + 1}}
	if diff := cmp.Diff(wanted, mustLoad(t, s, deployment("d1"), 0), protocmp.Transform()); diff != "" {
		t.Errorf("loaded, - wanted + got:\n%s", diff)
	}
	followed := follow(t, s, 0, subjects.AllEvents)
	if diff := cmp.Diff(wanted, followed.wait(2), protocmp.Transform()); diff != "" {
		t.Errorf("followed, - wanted + got:\n%s", diff)
	}
	if loc := mustLoad(t, s, deployment("d1"), 0)[0].Time.Location(); loc != time.UTC {
		t.Errorf("times come back in %s, wanted UTC", loc)
	}
}

func badNames(t *testing.T, s eventstore.Store) {
	for _, a := range []subjects.Aggregate{{}, subjects.Of("acme", "deployment", "a.b"), subjects.Of("*", "deployment", "d")} {
		if _, err := s.Append(t.Context(), after(0, text(a, "e", ""))); !errors.Is(err, subjects.ErrInvalid) {
			t.Errorf("append to %+v: %v, wanted ErrInvalid", a, err)
		}
		if _, err := s.Record(t.Context(), text(a, "e", "")); !errors.Is(err, subjects.ErrInvalid) {
			t.Errorf("record for %+v: %v, wanted ErrInvalid", a, err)
		}
		if _, err := s.Load(t.Context(), a, 0); !errors.Is(err, subjects.ErrInvalid) {
			t.Errorf("load %+v: %v, wanted ErrInvalid", a, err)
		}
	}
	if _, err := s.Record(t.Context(), text(deployment("d"), "", "")); err == nil {
		t.Error("an event without an ID was recorded")
	}
	if _, err := s.Record(t.Context(), eventstore.Event{Aggregate: deployment("d"), ID: "e"}); err == nil {
		t.Error("an event without a payload was recorded")
	}
}

func endedContext(t *testing.T, s eventstore.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := deployment("d1")
	_, appended := s.Append(ctx, after(0, text(a, "e1", "")))
	_, recorded := s.Record(ctx, text(a, "e2", ""))
	_, batch := s.AppendBatch(ctx, []eventstore.Expected{after(0, text(a, "e3", "")), after(0, text(deployment("d2"), "e4", ""))})
	_, loaded := s.Load(ctx, a, 0)
	_, last := s.LastSequence(ctx, subjects.AllEvents)
	for call, err := range map[string]error{"append": appended, "record": recorded, "batch": batch, "load": loaded, "last": last} {
		if !errors.Is(err, eventstore.ErrUnavailable) {
			t.Errorf("%s: %v, wanted ErrUnavailable", call, err)
		}
	}
}

// stranger is an event of a type that is linked into no program.
func stranger(t *testing.T, a subjects.Aggregate, id string) eventstore.Event {
	t.Helper()
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("storetest/stranger.proto"), Package: proto.String("storetest"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Stranger")}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var kind protoreflect.MessageDescriptor = file.Messages().Get(0)
	return eventstore.Event{Aggregate: a, ID: id, Payload: dynamicpb.NewMessage(kind), Time: start}
}

// following is a Follow that runs until the test ends.
type following struct {
	t        *testing.T
	stop     context.CancelFunc
	done     chan error
	caughtUp chan int // how many events there were before

	mu      sync.Mutex
	got     []eventstore.Recorded
	batches []int
	changed chan struct{}
}

func follow(t *testing.T, s eventstore.Store, after uint64, filters ...string) *following {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &following{t: t, stop: stop, done: make(chan error, 1), caughtUp: make(chan int, 10), changed: make(chan struct{}, 1)}
	go func() {
		f.done <- s.Follow(ctx, after, f.handle, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.caughtUp <- len(f.got)
		}, filters...)
	}()
	t.Cleanup(func() { f.end() })
	return f
}

func (f *following) handle(_ context.Context, events []eventstore.Recorded) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, events...)
	f.batches = append(f.batches, len(events))
	select {
	case f.changed <- struct{}{}:
	default:
	}
	return nil
}

// wait returns all events when there are n or more.
func (f *following) wait(n int) []eventstore.Recorded {
	f.t.Helper()
	late := time.After(deadline)
	for {
		f.mu.Lock()
		got := slices.Clone(f.got)
		f.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-f.changed:
		case <-late:
			f.t.Fatalf("after %s %d events of %d had come: %v", deadline, len(got), n, ids(got))
		}
	}
}

func (f *following) waitCaughtUp() (eventsBefore int) {
	f.t.Helper()
	select {
	case n := <-f.caughtUp:
		return n
	case <-time.After(deadline):
		f.t.Fatalf("it had not caught up after %s", deadline)
		return 0
	}
}

// end ends the context and wants Follow to return nil, again and again.
func (f *following) end() {
	f.t.Helper()
	f.stop()
	select {
	case err := <-f.done:
		if err != nil {
			f.t.Errorf("follow returned %v when its context ended, wanted nil", err)
		}
		f.done <- nil
	case <-time.After(deadline):
		f.t.Errorf("follow did not return when its context ended")
	}
}

func eventID(n int) string { return fmt.Sprintf("e%04d", n) }
