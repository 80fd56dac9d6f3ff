package decider_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// The aggregate of these tests is a purse: commands put in and take out, events
// say by how much, and it is never below nothing.
func purse() decider.Decider[int64, int64] {
	return decider.Decider[int64, int64]{
		Initial: func() int64 { return 0 },
		Decide: func(held, change int64, _ time.Time) (proto.Message, error) {
			switch {
			case change == 0:
				return nil, nil
			case held+change < 0:
				return nil, problem.InvalidState("There is not enough in the purse.")
			}
			return wrapperspb.Int64(change), nil
		},
		Evolve: func(held int64, e eventstore.Recorded) int64 {
			if change, ok := e.Payload.(*wrapperspb.Int64Value); ok {
				return held + change.Value
			}
			return held
		},
	}
}

func TestAPurseAsStories(t *testing.T) {
	t.Parallel()
	gwt.New(t, purse()).
		When(5).Then(wrapperspb.Int64(5)).
		When(-3).Then(wrapperspb.Int64(-3)).
		When(-3).ThenError(problem.CodeInvalidState).
		When(0).ThenNothing()
	if held := gwt.New(t, purse()).Given(wrapperspb.Int64(4), wrapperspb.String("a note"), wrapperspb.Int64(2)).State(); held != 6 {
		t.Errorf("the purse holds %d", held)
	}
}

var mine = subjects.Of("acme", "purse", "p1")

func options() decider.Options[int64] {
	var n atomic.Int64
	return decider.Options[int64]{
		Source: "test",
		Now:    func() time.Time { return gwt.Start() },
		NewID:  func() string { return fmt.Sprintf("id-%d", n.Add(1)) },
	}
}

func change(by int64) decider.Command[int64] {
	return decider.Command[int64]{Aggregate: mine, Command: by, Actor: "operator", Correlation: "request"}
}

func TestACommandBecomesAnEventAndAState(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 10} {
		store := memory.New()
		opts := options()
		opts.CacheSize = size
		h := decider.NewHandler(store, purse(), opts)
		for i, by := range []int64{5, 7, -2} {
			got, err := h.Handle(t.Context(), change(by))
			if err != nil {
				t.Fatal(err)
			}
			if got.Event == nil || got.Event.Sequence != uint64(i)+1 || got.Sequence != uint64(i)+1 {
				t.Errorf("command %d: %+v", i, got)
			}
			if got.Event.Actor != "operator" || got.Event.Correlation != "request" || got.Event.Source != "test" || !got.Event.Time.Equal(gwt.Start()) {
				t.Errorf("the event says %+v", got.Event)
			}
		}
		nothing, err := h.Handle(t.Context(), change(0))
		if err != nil || nothing.Event != nil || nothing.State != 10 || nothing.Sequence != 3 {
			t.Errorf("nothing to do: %+v, %v", nothing, err)
		}
		_, err = h.Handle(t.Context(), change(-11))
		if problem.From(err).Code != problem.CodeInvalidState {
			t.Errorf("too much: %v", err)
		}
		if held, sequence, err := h.Load(t.Context(), mine); held != 10 || sequence != 3 || err != nil {
			t.Errorf("the purse holds %d at %d, %v", held, sequence, err)
		}
	}
}

func TestManyAtOnceAllGetTheirTurn(t *testing.T) {
	t.Parallel()
	store := memory.New()
	var handlers []*decider.Handler[int64, int64]
	for i := range 4 {
		opts := options()
		opts.CacheSize = i // the first has no cache
		opts.NewID = func() string { return fmt.Sprintf("%d-%d", i, time.Now().UnixNano()) }
		handlers = append(handlers, decider.NewHandler(store, purse(), opts))
	}
	var all sync.WaitGroup
	for _, h := range handlers {
		all.Go(func() {
			for range 50 {
				if _, err := h.Handle(t.Context(), change(1)); err != nil {
					t.Errorf("handle: %v", err)
				}
			}
		})
	}
	all.Wait()
	if held, _, _ := handlers[0].Load(t.Context(), mine); held != 200 {
		t.Errorf("the purse holds %d, wanted 200", held)
	}
}

func TestTheSameCommandAgainIsNotDoneAgain(t *testing.T) {
	t.Parallel()
	for _, with := range []bool{false, true} {
		opts := options()
		if with {
			opts.With = claims(memory.New()).again
		}
		h := decider.NewHandler(memory.New(), purse(), opts)
		c := change(5)
		c.ID = "the-command"
		first, err := h.Handle(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Handle(t.Context(), change(1)); err != nil {
			t.Fatal(err)
		}
		again, err := h.Handle(t.Context(), c)
		if err != nil || again.State != 6 || again.Event == nil || again.Event.Sequence != first.Event.Sequence {
			t.Errorf("again (with claims: %v): %+v, %v", with, again, err)
		}
	}
}

// A command that may have been given before is looked for first, so that it is not
// decided upon again, and its result is the one that it had then.
func TestACommandOfLongAgoHasTheResultThatItHad(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 10} {
		opts := options()
		opts.CacheSize = size
		store := memory.New()
		c := change(-5)
		c.ID, c.Again = "the-command", true
		h := decider.NewHandler(store, purse(), opts)
		if _, err := h.Handle(t.Context(), change(7)); err != nil {
			t.Fatal(err)
		}
		first, err := h.Handle(t.Context(), c)
		if err != nil || first.State != 2 {
			t.Fatalf("%+v, %v", first, err)
		}
		if _, err := h.Handle(t.Context(), change(1)); err != nil {
			t.Fatal(err)
		}
		// There is not enough in the purse to decide the same again.
		for _, h := range []*decider.Handler[int64, int64]{h, decider.NewHandler(store, purse(), opts)} {
			again, err := h.Handle(t.Context(), c)
			if err != nil || again.State != 2 || again.Sequence != first.Sequence || again.Event == nil {
				t.Errorf("again: %+v, %v", again, err)
			}
			if _, found, err := h.Written(t.Context(), mine, "another"); found || err != nil {
				t.Errorf("a command that nobody gave: %v, %v", found, err)
			}
		}
		if held, _, _ := h.Load(t.Context(), mine); held != 3 {
			t.Errorf("the purse holds %d", held)
		}
	}
}

// claimer claims one name for every event.
type claimer struct{ store eventstore.Store }

func claims(s eventstore.Store) claimer { return claimer{s} }

func (c claimer) name(n string) subjects.Aggregate {
	return subjects.Of(subjects.Platform, subjects.Claim, n)
}

func (c claimer) take(ctx context.Context, _ int64, _ proto.Message) ([]eventstore.Expected, error) {
	taken, err := c.store.Load(ctx, c.name("web"), 0)
	if err != nil {
		return nil, err
	}
	if len(taken) > 0 {
		return nil, problem.Conflict("The name is taken.")
	}
	return []eventstore.Expected{{Event: eventstore.Event{Aggregate: c.name("web"), Payload: wrapperspb.String("taken")}}}, nil
}

// again claims a name of its own for each event.
func (c claimer) again(_ context.Context, _ int64, event proto.Message) ([]eventstore.Expected, error) {
	name := fmt.Sprint("n", event.(*wrapperspb.Int64Value).Value)
	return []eventstore.Expected{{Event: eventstore.Event{Aggregate: c.name(name), Payload: wrapperspb.String("taken")}}}, nil
}

func TestClaimsAreTakenWithTheEventOrNotAtAll(t *testing.T) {
	t.Parallel()
	store := memory.New()
	opts := options()
	opts.With = claims(store).take
	h := decider.NewHandler(store, purse(), opts)
	got, err := h.Handle(t.Context(), change(5))
	if err != nil {
		t.Fatal(err)
	}
	taken, err := store.Load(t.Context(), claims(store).name("web"), 0)
	if err != nil || len(taken) != 1 {
		t.Fatalf("the claim: %v, %v", taken, err)
	}
	if c := taken[0]; c.ID != got.Event.ID || c.Actor != "operator" || c.Source != "test" || c.Sequence >= got.Event.Sequence {
		t.Errorf("the claim is %+v, the event %+v", c, got.Event)
	}
	other := change(5)
	other.Aggregate = subjects.Of("other", "purse", "p2")
	if _, err := h.Handle(t.Context(), other); problem.From(err).Code != problem.CodeConflict {
		t.Errorf("the same name again: %v", err)
	}
	if events, _ := store.Load(t.Context(), other.Aggregate, 0); len(events) != 0 {
		t.Errorf("of the refused command is left %v", events)
	}
}

// moody is a log whose writes fail as told, one by one.
type moody struct {
	eventstore.Store
	// moods are taken one for each write.
	moods []mood
	reads int
}

type mood struct {
	writes bool
	err    error
}

func (m *moody) AppendBatch(ctx context.Context, events []eventstore.Expected) (uint64, error) {
	if len(m.moods) == 0 {
		return m.Store.AppendBatch(ctx, events)
	}
	now := m.moods[0]
	m.moods = m.moods[1:]
	if now.writes {
		if _, err := m.Store.AppendBatch(ctx, events); err != nil {
			return 0, err
		}
	}
	return 0, now.err
}

func (m *moody) Load(ctx context.Context, a subjects.Aggregate, after uint64) ([]eventstore.Recorded, error) {
	events, err := m.Store.Load(ctx, a, after)
	m.reads += len(events)
	return events, err
}

func TestAnAnswerThatIsLostDoesNotDoItTwice(t *testing.T) {
	t.Parallel()
	for name, moods := range map[string][]mood{
		"written, answer lost":        {{writes: true, err: eventstore.ErrUnavailable}},
		"not written":                 {{err: eventstore.ErrUnavailable}},
		"not written, then conflict":  {{err: eventstore.ErrUnavailable}, {err: eventstore.ErrConflict}},
		"conflict, then answer lost":  {{err: eventstore.ErrConflict}, {writes: true, err: eventstore.ErrUnavailable}},
		"lost twice, written at last": {{err: eventstore.ErrUnavailable}, {writes: true, err: eventstore.ErrUnavailable}},
	} {
		for _, size := range []int{0, 10} {
			opts := options()
			opts.CacheSize = size
			h := decider.NewHandler[int64, int64](&moody{Store: memory.New(), moods: moods}, purse(), opts)
			got, err := h.Handle(t.Context(), change(5))
			if err != nil || got.State != 5 || got.Event == nil || got.Event.Sequence != 1 {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
			if held, _, _ := h.Load(t.Context(), mine); held != 5 {
				t.Errorf("%s: the purse holds %d", name, held)
			}
		}
	}
}

func TestALogThatStaysAwayIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, away := range []error{eventstore.ErrUnavailable, eventstore.ErrConflict} {
		moods := make([]mood, 100)
		for i := range moods {
			moods[i].err = away
		}
		h := decider.NewHandler[int64, int64](&moody{Store: memory.New(), moods: moods}, purse(), options())
		if _, err := h.Handle(t.Context(), change(5)); !errors.Is(err, away) {
			t.Errorf("gave up with %v, wanted %v", err, away)
		}
	}
}

func TestAKeptStateLoadsOnlyWhatCameAfter(t *testing.T) {
	t.Parallel()
	store := &moody{Store: memory.New()}
	opts := options()
	opts.CacheSize = 1
	h := decider.NewHandler[int64, int64](store, purse(), opts)
	for range 10 {
		if _, err := h.Handle(t.Context(), change(1)); err != nil {
			t.Fatal(err)
		}
	}
	if store.reads != 0 {
		t.Errorf("%d events were read though the states were kept", store.reads)
	}
	// Another aggregate takes the only place.
	other := change(1)
	other.Aggregate = subjects.Of("acme", "purse", "p2")
	if _, err := h.Handle(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Handle(t.Context(), change(1)); err != nil || got.State != 11 || store.reads != 10 {
		t.Errorf("state %d after reading %d events, %v", got.State, store.reads, err)
	}
}
