package decider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// conflictTries and conflictWait bound deciding again because others were faster.
	conflictTries = 12
	conflictWait  = 2 * time.Millisecond
	// unavailableTries and unavailableWait bound asking a log again that is away.
	unavailableTries = 3
	unavailableWait  = 100 * time.Millisecond
	mostWait         = time.Second
)

// Options are what a Handler needs besides its decider. Source, Now and NewID must be set.
type Options[S any] struct {
	// Source is the service that writes, as events say it.
	Source string
	// Now is the clock.
	Now func() time.Time
	// NewID makes the ID of a decision whose command has none.
	NewID func() string
	// With gives more decisions, of other aggregates, that are written all or none
	// with the event decided from state: claims. What it leaves empty of an event's
	// ID and metadata is the decision's own. An error refuses the command.
	With func(ctx context.Context, state S, event proto.Message) ([]eventstore.Expected, error)
	// CacheSize is how many aggregates' states are kept, so that a command loads only
	// what came after; 0 keeps none.
	CacheSize int
}

// Command is a command for one aggregate and who gave it.
type Command[C any] struct {
	Aggregate subjects.Aggregate
	Command   C
	// ID becomes the event's ID. The same one again does not write again (within the
	// log's window for duplicates). Empty for a new one.
	ID string
	// Again says that the command may have been given before, with the same ID, however
	// long ago: what was written then, and the state after it, is the result.
	Again bool
	// Actor, Causation, Correlation and TraceParent go into the event.
	Actor, Causation, Correlation, TraceParent string
}

// Result is what became of a command.
type Result[S any] struct {
	// State is the state after the command.
	State S
	// Event is what was written; nil when there was nothing to do.
	Event *eventstore.Recorded
	// Sequence is the last one of the aggregate that State includes; 0 for none.
	Sequence uint64
}

// Handler runs commands. It may be used concurrently.
type Handler[S, C any] struct {
	store   eventstore.Store
	decider Decider[S, C]
	opts    Options[S]
	cache   *cache[S]
}

// NewHandler runs d's commands against store.
func NewHandler[S, C any](store eventstore.Store, d Decider[S, C], opts Options[S]) *Handler[S, C] {
	return &Handler[S, C]{store: store, decider: d, opts: opts, cache: newCache[S](opts.CacheSize)}
}

// Load returns the aggregate's state and the sequence of its last event. Errors:
// eventstore.ErrUnavailable.
func (h *Handler[S, C]) Load(ctx context.Context, a subjects.Aggregate) (S, uint64, error) {
	at, _, err := h.load(ctx, a)
	return at.state, at.sequence, err
}

// Handle loads, decides and appends; when others were faster it does so again, a
// bounded number of times. Errors: Decide's and With's own, eventstore.ErrConflict
// when it was never fast enough, eventstore.ErrUnavailable when the log did not
// answer: then the event may or may not be written.
func (h *Handler[S, C]) Handle(ctx context.Context, c Command[C]) (Result[S], error) {
	if c.ID == "" {
		c.ID = h.opts.NewID()
	}
	a := attempt[S, C]{handler: h, command: c, unsure: c.Again}
	conflicts, absences := waits(conflictWait), waits(unavailableWait)
	for conflicted, unavailable := 0, 0; ; {
		result, err := a.try(ctx)
		var wait time.Duration
		switch {
		case errors.Is(err, eventstore.ErrConflict):
			conflicted++
			wait = conflicts.NextBackOff()
		case errors.Is(err, eventstore.ErrUnavailable):
			unavailable++
			wait = absences.NextBackOff()
		default:
			return result, err
		}
		if conflicted == conflictTries || unavailable == unavailableTries {
			return Result[S]{}, fmt.Errorf("%s: gave up: %w", c.Aggregate, err)
		}
		select {
		case <-ctx.Done():
			return Result[S]{}, fmt.Errorf("%s: %w: %w", c.Aggregate, err, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func waits(first time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = first, mostWait
	return b
}

// Written is the result of the command with that ID, as it was when the command was
// done; found is false when the log has nothing of it. Errors:
// eventstore.ErrUnavailable.
func (h *Handler[S, C]) Written(ctx context.Context, aggregate subjects.Aggregate, id string) (r Result[S], found bool, err error) {
	events, err := h.store.Load(ctx, aggregate, 0)
	if err != nil {
		return Result[S]{}, false, err
	}
	for i, e := range events {
		if e.ID == id {
			return Result[S]{State: h.decider.Fold(h.decider.Initial(), events[:i+1]), Event: &e, Sequence: e.Sequence}, true, nil
		}
	}
	return Result[S]{}, false, nil
}

// position is a state and the last event that it includes.
type position[S any] struct {
	state    S
	sequence uint64
}

// load also returns the events that were not in the cache.
func (h *Handler[S, C]) load(ctx context.Context, a subjects.Aggregate) (position[S], []eventstore.Recorded, error) {
	at, ok := h.cache.get(a)
	if !ok {
		at = position[S]{state: h.decider.Initial()}
	}
	events, err := h.store.Load(ctx, a, at.sequence)
	if err != nil {
		return position[S]{}, nil, err
	}
	if len(events) > 0 {
		at = position[S]{state: h.decider.Fold(at.state, events), sequence: events[len(events)-1].Sequence}
		h.cache.put(a, at)
	}
	return at, events, nil
}

// attempt is one command over all its tries.
type attempt[S, C any] struct {
	handler *Handler[S, C]
	command Command[C]
	// unsure is set when an earlier try may have written the event after all; then
	// before is the aggregate's last sequence that this try was made from.
	unsure    bool
	before    uint64
	conflicts int
}

func (a *attempt[S, C]) try(ctx context.Context) (Result[S], error) {
	h, c := a.handler, a.command
	if a.unsure {
		if done, found, err := a.find(ctx, a.before); found || err != nil {
			return done, err
		}
	}
	at, _, err := h.load(ctx, c.Aggregate)
	if err != nil {
		return Result[S]{}, err
	}
	now := h.opts.Now()
	payload, err := h.decider.Decide(at.state, c.Command, now)
	if err != nil {
		return Result[S]{}, err
	}
	if payload == nil {
		return Result[S]{State: at.state, Sequence: at.sequence}, nil
	}
	event := eventstore.Event{
		Aggregate: c.Aggregate, ID: c.ID, Payload: payload, Time: now, Source: h.opts.Source,
		Actor: c.Actor, Causation: c.Causation, Correlation: c.Correlation, TraceParent: c.TraceParent,
	}
	batch, err := a.batch(ctx, at, event)
	if err != nil {
		return Result[S]{}, err
	}
	if !a.unsure {
		a.before = at.sequence
	}
	sequence, err := h.store.AppendBatch(ctx, batch)
	if err != nil {
		a.learn(err)
		return Result[S]{}, err
	}
	if a.unsure || sequence <= at.sequence {
		// The log may have answered with what an earlier try, or command, has written.
		done, found, err := a.find(ctx, min(a.before, sequence-1))
		if err != nil || found {
			return done, err
		}
	}
	recorded := eventstore.Recorded{Event: event, Sequence: sequence}
	after := position[S]{state: h.decider.Evolve(at.state, recorded), sequence: sequence}
	h.cache.put(c.Aggregate, after)
	return Result[S]{State: after.state, Event: &recorded, Sequence: sequence}, nil
}

// learn takes from a failed append whether the event may be in the log already.
func (a *attempt[S, C]) learn(err error) {
	switch {
	case errors.Is(err, eventstore.ErrUnavailable):
		a.unsure = true
	case errors.Is(err, eventstore.ErrConflict):
		// One is with somebody else. When it comes again it may be with this very
		// event, written by an earlier command with the same ID, however long ago.
		if a.conflicts++; a.conflicts == 2 {
			a.unsure, a.before = true, 0
		}
	}
}

// batch is what is written: With's events, and last the decision, whose sequence is
// then that of the batch.
func (a *attempt[S, C]) batch(ctx context.Context, at position[S], event eventstore.Event) ([]eventstore.Expected, error) {
	var batch []eventstore.Expected
	if with := a.handler.opts.With; with != nil {
		more, err := with(ctx, at.state, event.Payload)
		if err != nil {
			return nil, err
		}
		for _, m := range more {
			inherit(&m.Event, event)
			batch = append(batch, m)
		}
	}
	return append(batch, eventstore.Expected{Event: event, LastSequence: at.sequence}), nil
}

func inherit(e *eventstore.Event, from eventstore.Event) {
	if e.Time.IsZero() {
		e.Time = from.Time
	}
	for field, value := range map[*string]string{
		&e.ID: from.ID, &e.Source: from.Source, &e.Actor: from.Actor, &e.Causation: from.Causation,
		&e.Correlation: from.Correlation, &e.TraceParent: from.TraceParent,
	} {
		if *field == "" {
			*field = value
		}
	}
}

// find looks in the log, behind after, for the event that this command has written.
func (a *attempt[S, C]) find(ctx context.Context, after uint64) (Result[S], bool, error) {
	if a.command.Again {
		return a.handler.Written(ctx, a.command.Aggregate, a.command.ID)
	}
	events, err := a.handler.store.Load(ctx, a.command.Aggregate, after)
	if err != nil {
		return Result[S]{}, false, err
	}
	for _, e := range events {
		if e.ID != a.command.ID {
			continue
		}
		at, _, err := a.handler.load(ctx, a.command.Aggregate)
		if err != nil {
			return Result[S]{}, false, err
		}
		return Result[S]{State: at.state, Event: &e, Sequence: at.sequence}, true, nil
	}
	return Result[S]{}, false, nil
}
