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
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/fleet"
	"github.com/slipway-paas/slipway/services/scheduler/placement"
)

// retryAfter is how long a step that could not be carried out waits.
const retryAfter = time.Second

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
	// Moved is told, for the figures, how many instances were given another node and
	// why: node_lost, drain or not_healthy. It may be nil.
	Moved func(cause string, instances int)
	Now   func() time.Time
	Log   *slog.Logger
}

// Reactor is the rollout process of all deployments.
type Reactor struct {
	Deps
	mu sync.Mutex
	// dirty deployments have changed since they were last looked at.
	dirty map[string]bool
	kick  chan struct{}

	// The rest belongs to the loop's goroutine.

	// appended is the sequence of our own last decision, until it is folded.
	appended map[string]uint64
	// wake is when time alone makes a deployment due.
	wake map[string]time.Time
	// homeless deployments wait for room on a node.
	homeless map[string]bool
	// doubts are placements that may be in the log and are not folded.
	doubts  map[string]doubt
	waiting atomic.Int64
}

// New returns a reactor that has done nothing yet.
func New(d Deps) *Reactor {
	return &Reactor{Deps: d, dirty: map[string]bool{}, kick: make(chan struct{}, 1),
		appended: map[string]uint64{}, wake: map[string]time.Time{}, homeless: map[string]bool{}, doubts: map[string]doubt{}}
}

// Changed says that deployments have new events.
func (r *Reactor) Changed(ids ...string) {
	r.mu.Lock()
	for _, id := range ids {
		r.dirty[id] = true
	}
	r.mu.Unlock()
	r.poke()
}

// NodesChanged says that room may have come or gone, and which nodes got into or
// out of trouble.
func (r *Reactor) NodesChanged(nodes ...string) {
	for _, node := range nodes {
		r.Changed(r.Fleet.OnNode(node)...)
	}
	r.poke()
}

// Waiting is how many deployments wait for room on a node.
func (r *Reactor) Waiting() int { return int(r.waiting.Load()) }

func (r *Reactor) poke() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Run works until ctx ends. It is to be started once the fleet is folded up to
// the end of the log.
func (r *Reactor) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.kick:
		case <-timer.C:
		}
		// One look serves both.
		select {
		case <-r.kick:
		default:
		}
		r.work(ctx)
		timer.Reset(r.untilNextWake())
	}
}

func (r *Reactor) untilNextWake() time.Duration {
	next := time.Hour
	now := r.Now()
	for _, at := range r.wake {
		next = min(next, at.Sub(now))
	}
	return max(next, 0)
}

func (r *Reactor) work(ctx context.Context) {
	r.mu.Lock()
	due := r.dirty
	r.dirty = map[string]bool{}
	r.mu.Unlock()
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
	for _, id := range slices.Sorted(maps.Keys(due)) {
		if ctx.Err() != nil {
			return
		}
		if err := r.step(ctx, id); err != nil && ctx.Err() == nil {
			r.Log.WarnContext(ctx, "a deployment could not be carried forward; trying again", "deployment", id, "error", err)
			r.wake[id] = r.Now().Add(retryAfter)
		}
	}
	r.waiting.Store(int64(len(r.homeless)))
}

func (r *Reactor) step(ctx context.Context, id string) error {
	s, ok := r.Fleet.Get(id)
	if !ok {
		// Published once, and not in the log: nothing is wanted of it.
		s = deployment.State{ID: id}
	}
	if err := r.Views.Publish(ctx, s); err != nil {
		return fmt.Errorf("publishing what nodes must run: %w", err)
	}
	if s.Sequence < r.appended[id] {
		return nil
	}
	delete(r.appended, id)
	delete(r.homeless, id)
	now := r.Now()
	step := deployment.Advance(s, r.Nodes.Troubled(), now)
	if !step.Wake.IsZero() {
		r.wake[id] = step.Wake
	}
	command := step.Command
	if step.NeedsPlacement {
		command = r.place(s)
	}
	if step.Move != nil {
		command = r.move(s, step.Move, command)
	}
	if command == nil {
		return nil
	}
	if _, destroyed := command.(deployment.MarkDestroyed); destroyed {
		if err := r.Keys.Destroy(ctx, subjects.Of(s.Org, subjects.Deployment, s.ID)); err != nil {
			return fmt.Errorf("destroying the data key: %w", err)
		}
	}
	return r.append(ctx, s, command, now)
}

func (r *Reactor) append(ctx context.Context, s deployment.State, c deployment.Command, now time.Time) error {
	decision, err := deployment.Decide(s, c, now)
	if err != nil || decision == nil {
		return err
	}
	extra, err := r.Claims.With(ctx, s, decision)
	if err != nil {
		return fmt.Errorf("finding the claims that go with it: %w", err)
	}
	// The decision comes last, so that the batch's sequence is its own.
	batch := append(extra, eventstore.Expected{LastSequence: s.Sequence, Event: eventstore.Event{
		Aggregate: subjects.Of(s.Org, subjects.Deployment, s.ID), ID: uuid.Must(uuid.NewV7()).String(),
		Payload: decision, Time: now.UTC().Round(0), Source: "scheduler", TraceParent: s.TraceParent,
	}})
	sequence, err := r.Store.AppendBatch(ctx, batch)
	if errors.Is(err, eventstore.ErrConflict) {
		// What came first is on its way to us and makes the deployment dirty again,
		// unless it is a claim's.
		r.wake[s.ID] = r.Now().Add(retryAfter)
		return nil
	}
	if err != nil {
		if d := doubted(s, decision); len(d.placements) > 0 {
			r.doubts[s.ID] = d
		}
		return fmt.Errorf("appending %T: %w", decision, err)
	}
	r.appended[s.ID] = sequence
	// What was promised counts for the next deployment at once, not only when the log
	// has told it back: many move when a node is lost.
	event := batch[len(batch)-1].Event
	r.Fleet.Apply(eventstore.Recorded{Event: event, Sequence: sequence})
	r.count(c)
	return nil
}
