// Package rollout carries deployments forward without anybody asking: it follows
// the log, publishes what nodes and health must do, and appends the decisions
// that Advance says are due. It is level-triggered: whatever it did not get done
// is due again, and what was done already is refused by Decide.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/fleet"
	"github.com/slipway-paas/slipway/services/scheduler/placement"
)

const (
	// retryAfter is how long a step that could not be carried out waits.
	retryAfter = time.Second
	// atOnce is how many deployments are carried forward at once: most of a step is
	// waiting for the log's disk.
	atOnce = 16
)

// Nodes are those there are.
type Nodes interface {
	// Live are the nodes heard of lately.
	Live() []placement.Node
	// Troubled are those that cannot keep their instances.
	Troubled() deployment.Nodes
}

// Views publishes what follows from a deployment's state.
type Views interface {
	Publish(ctx context.Context, s deployment.State) error
}

// Keys destroys a deployment's data key.
type Keys interface {
	Destroy(ctx context.Context, a subjects.Aggregate) error
}

// Claims says which name claims go with a decision, atomically.
type Claims interface {
	With(ctx context.Context, s deployment.State, decision proto.Message) ([]eventstore.Expected, error)
}

// Deps are what the reactor works with.
type Deps struct {
	Store  eventstore.Store
	Fleet  *fleet.Fleet
	Nodes  Nodes
	Views  Views
	Keys   Keys
	Claims Claims
	Now    func() time.Time
	Log    *slog.Logger
	// AtOnce is how many deployments are carried forward at once; 0 for 16. With 1 they
	// go in the order of their ids, so that a simulation can be repeated.
	AtOnce int
	// Tracer and Figures may be nil.
	Tracer  trace.Tracer
	Figures Figures
}

// Reactor is the rollout process of all deployments. It takes many at once, but each
// deployment's steps one after the other.
type Reactor struct {
	Deps
	placing *placing
	// kick says that deployments are dirty, rearm that there is something to wait for.
	kick, rearm chan struct{}

	mu sync.Mutex
	// dirty deployments have changed since they were last looked at.
	dirty map[string]bool
	// busy deployments are looked at now.
	busy map[string]bool
	// appended is the sequence of our own last decision, until it is folded.
	appended map[string]uint64
	// wake is when time alone makes a deployment due.
	wake map[string]time.Time
	// homeless deployments wait for room on a node.
	homeless map[string]bool
}

// New returns a reactor that has done nothing yet.
func New(d Deps) *Reactor {
	if d.Tracer == nil {
		d.Tracer = noop.NewTracerProvider().Tracer("rollout")
	}
	if d.Figures == nil {
		d.Figures = NoFigures{}
	}
	if d.AtOnce == 0 {
		d.AtOnce = atOnce
	}
	return &Reactor{Deps: d, kick: make(chan struct{}, 1), rearm: make(chan struct{}, 1),
		placing: newPlacing(d.Fleet, d.Nodes),
		dirty:   map[string]bool{}, busy: map[string]bool{},
		appended: map[string]uint64{}, wake: map[string]time.Time{}, homeless: map[string]bool{}}
}

// Changed says that deployments have new events.
func (r *Reactor) Changed(ids ...string) {
	r.mu.Lock()
	for _, id := range ids {
		r.dirty[id] = true
	}
	r.mu.Unlock()
	poke(r.kick)
}

// NodesChanged says that room may have come or gone, and which nodes got into or
// out of trouble.
func (r *Reactor) NodesChanged(nodes ...string) {
	for _, node := range nodes {
		r.Changed(r.Fleet.OnNode(node)...)
	}
	poke(r.kick)
}

// Waiting is how many deployments wait for room on a node.
func (r *Reactor) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.homeless)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run works until ctx ends. It is to be started once the fleet is folded up to
// the end of the log.
func (r *Reactor) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var steps errgroup.Group
	steps.SetLimit(r.AtOnce)
	defer func() { _ = steps.Wait() }() // a step's failure is its own
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.rearm:
		case <-r.kick:
			r.work(ctx, &steps)
		case <-timer.C:
			// One look serves both.
			select {
			case <-r.kick:
			default:
			}
			r.work(ctx, &steps)
		}
		timer.Reset(r.untilNextWake())
	}
}

func (r *Reactor) untilNextWake() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := time.Hour
	now := r.Now()
	for _, at := range r.wake {
		next = min(next, at.Sub(now))
	}
	return max(next, 0)
}

// work has every deployment looked at that is due.
func (r *Reactor) work(ctx context.Context, steps *errgroup.Group) {
	for _, id := range r.takeDue() {
		if ctx.Err() != nil {
			return
		}
		if r.AtOnce == 1 {
			r.look(ctx, id)
			r.lookedAt(id)
			continue
		}
		steps.Go(func() error {
			r.carryForward(ctx, id)
			return nil
		})
	}
}

// takeDue returns the due deployments, busy from here on. Those that are so already
// become dirty: who looks at them looks again.
func (r *Reactor) takeDue() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := r.dirty
	r.dirty = map[string]bool{}
	now := r.Now()
	for id, at := range r.wake {
		if !now.Before(at) {
			due[id] = true
			delete(r.wake, id)
		}
	}
	for id := range r.homeless {
		due[id] = true
	}
	for id := range due {
		if r.busy[id] {
			r.dirty[id] = true
			delete(due, id)
			continue
		}
		r.busy[id] = true
	}
	return slices.Sorted(maps.Keys(due))
}

// carryForward takes a deployment's steps until nothing about it is new.
func (r *Reactor) carryForward(ctx context.Context, id string) {
	defer poke(r.rearm)
	for again := true; again; {
		r.look(ctx, id)
		r.mu.Lock()
		again = r.dirty[id] && ctx.Err() == nil
		if again {
			delete(r.dirty, id)
		} else {
			delete(r.busy, id)
		}
		r.mu.Unlock()
	}
}

// look takes one step, which is taken again later when it fails.
func (r *Reactor) look(ctx context.Context, id string) {
	if err := r.step(ctx, id); err != nil && ctx.Err() == nil {
		r.Log.WarnContext(ctx, "a deployment could not be carried forward; trying again", "deployment", id, "error", err)
		r.lookAgain(id, r.Now().Add(retryAfter))
	}
}

func (r *Reactor) lookedAt(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, id)
}

func (r *Reactor) lookAgain(id string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wake[id] = at
}

func (r *Reactor) waitForRoom(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.homeless[id] = true
}

func (r *Reactor) step(ctx context.Context, id string) error {
	s, ok := r.Fleet.Get(id)
	if !ok {
		// Published once, and not in the log: nothing is wanted of it.
		s = deployment.State{ID: id}
	}
	ctx = observe.WithTraceParent(ctx, s.TraceParent)
	if err := r.Views.Publish(ctx, s); err != nil {
		return fmt.Errorf("publishing what nodes must run: %w", err)
	}
	if !r.upToDate(s) {
		return nil
	}
	now := r.Now()
	step := deployment.Advance(s, r.Nodes.Troubled(), now)
	if !step.Wake.IsZero() {
		r.lookAgain(id, step.Wake)
	}
	command := step.Command
	fits := true
	if step.NeedsPlacement > 0 {
		command, fits = r.placing.first(s, step.NeedsPlacement)
	}
	if step.Move != nil {
		command, fits = r.placing.move(s, step.Move, command)
	}
	if !fits {
		r.waitForRoom(id)
	}
	if command == nil {
		return nil
	}
	ctx, span := r.startStep(ctx, s, command)
	defer span.End()
	return observe.Failed(span, r.carryOut(ctx, s, command, now))
}

// upToDate is false while the last decision of our own is not folded.
func (r *Reactor) upToDate(s deployment.State) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Sequence < r.appended[s.ID] {
		return false
	}
	delete(r.appended, s.ID)
	delete(r.homeless, s.ID)
	return true
}

func (r *Reactor) carryOut(ctx context.Context, s deployment.State, c deployment.Command, now time.Time) error {
	if _, destroyed := c.(deployment.MarkDestroyed); destroyed {
		if err := r.Keys.Destroy(ctx, subjects.Of(s.Org, subjects.Deployment, s.ID)); err != nil {
			return fmt.Errorf("destroying the data key: %w", err)
		}
	}
	return r.append(ctx, s, c, now)
}

func (r *Reactor) append(ctx context.Context, s deployment.State, c deployment.Command, now time.Time) error {
	decision, err := deployment.Decide(s, c, now)
	if err != nil || decision == nil {
		r.placing.settled(s.ID)
		return err
	}
	extra, err := r.Claims.With(ctx, s, decision)
	if err != nil {
		r.placing.settled(s.ID)
		return fmt.Errorf("finding the claims that go with it: %w", err)
	}
	// The decision comes last, so that the batch's sequence is its own.
	batch := append(extra, eventstore.Expected{LastSequence: s.Sequence, Event: eventstore.Event{
		Aggregate: subjects.Of(s.Org, subjects.Deployment, s.ID), ID: uuid.Must(uuid.NewV7()).String(),
		Payload: decision, Time: now.UTC().Round(0), Source: "scheduler", TraceParent: traceParent(ctx, s),
	}})
	sequence, err := r.Store.AppendBatch(ctx, batch)
	r.Figures.Decided(CommandName(c), err)
	if errors.Is(err, eventstore.ErrConflict) {
		// What came first is on its way to us and makes the deployment dirty again,
		// unless it is a claim's.
		r.placing.settled(s.ID)
		r.lookAgain(s.ID, r.Now().Add(retryAfter))
		return nil
	}
	if err != nil {
		r.placing.unanswered(s.ID)
		return fmt.Errorf("appending %T: %w", decision, err)
	}
	r.mu.Lock()
	r.appended[s.ID] = sequence
	r.mu.Unlock()
	// What was promised counts for the next deployment at once, not only when the log
	// has told it back: many move when a node is lost.
	r.Fleet.Apply(eventstore.Recorded{Event: batch[len(batch)-1].Event, Sequence: sequence})
	r.placing.settled(s.ID)
	r.ended(s, c, now)
	r.Log.InfoContext(ctx, "decided", "command", CommandName(c), "deployment", s.ID, "sequence", sequence)
	return nil
}

// traceParent is the step's span, or what the deployment has when there is none.
func traceParent(ctx context.Context, s deployment.State) string {
	if parent := observe.TraceParent(ctx); parent != "" {
		return parent
	}
	return s.TraceParent
}
