// Package roster holds every node there is: what its events say of it, and when it
// was last heard of. From both follows what is to be decided: that a node has
// joined, or is lost. It does no I/O and is safe for concurrent use.
package roster

import (
	"cmp"
	"slices"
	"sync"
	"time"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/node"
	"github.com/slipway-paas/slipway/services/scheduler/placement"
)

// Roster is all nodes by id.
type Roster struct {
	// lossAfter is the silence that makes a node lost.
	lossAfter time.Duration
	now       func() time.Time

	mu    sync.Mutex
	nodes map[string]*entry
	// listening is since when a node's silence says something about the node.
	listening time.Time
}

type entry struct {
	state node.State
	// beat is the last heartbeat of this run, heard then; nil for none.
	beat     *nodev1.Node
	heard    time.Time
	revision uint64
}

// New returns a roster that has heard of no node. A node counts as lost after a
// silence of lossAfter, counted by now, from the moment at which one listens.
func New(lossAfter time.Duration, now func() time.Time) *Roster {
	return &Roster{lossAfter: lossAfter, now: now, nodes: map[string]*entry{}, listening: now()}
}

func (r *Roster) entry(id string) *entry {
	e := r.nodes[id]
	if e == nil {
		e = &entry{}
		r.nodes[id] = e
	}
	return e
}

// Apply folds a node's event in. The same event again changes nothing.
func (r *Roster) Apply(rec eventstore.Recorded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(rec.Aggregate.ID)
	e.state = node.Evolve(e.state, rec)
}

// Heard takes in a heartbeat, with the view's revision of it, and reports whether
// room may have come by it. A heartbeat that does not name the node is none of it: it
// was made to be written there by somebody who may not.
func (r *Roster) Heard(id string, beat *nodev1.Node, revision uint64) bool {
	if beat.GetNodeId() != id {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(id)
	before, was := e.placement(id), r.fresh(e)
	e.beat, e.heard, e.revision = beat, r.now(), revision
	return !was || before != e.placement(id)
}

// ListenAgain forgives all silence so far: heartbeats could not be heard.
func (r *Roster) ListenAgain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listening = r.now()
}

// fresh reports whether the node was heard of lately enough to be given something.
func (r *Roster) fresh(e *entry) bool {
	return e.beat != nil && r.now().Sub(e.heard) < r.lossAfter/2
}

// silence is how long nothing was heard of the node though one listened.
func (r *Roster) silence(e *entry) time.Duration {
	since := e.heard
	if r.listening.After(since) {
		since = r.listening
	}
	return r.now().Sub(since)
}

func (e *entry) placement(id string) placement.Node {
	return placement.Node{ID: id, MemoryMB: e.beat.GetMemoryMb(), CPUMillicores: e.beat.GetCpuMillicores(),
		Unschedulable: e.state.Status() != node.Ready}
}

// Live are the nodes that were heard of within half of what makes them lost;
// those that are to take nothing are marked.
func (r *Roster) Live() []placement.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]placement.Node, 0, len(r.nodes))
	for id, e := range r.nodes {
		if r.fresh(e) {
			out = append(out, e.placement(id))
		}
	}
	slices.SortFunc(out, func(a, b placement.Node) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Troubled are the nodes that cannot keep their instances.
func (r *Roster) Troubled() deployment.Nodes {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := deployment.Nodes{}
	for id, e := range r.nodes {
		switch e.state.Status() {
		case node.Lost:
			out[id] = deployment.NodeLost
		case node.Draining:
			out[id] = deployment.NodeDraining
		}
	}
	return out
}

// Due is a decision to take about a node.
type Due struct {
	ID      string
	Command node.Command
	// Revision is that of the last heartbeat heard; a newer one takes Lose back.
	Revision uint64
}

// Due returns what follows from who was heard and who was not. It is
// level-triggered: it is due until its event has been folded in.
func (r *Roster) Due() []Due {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Due
	for id, e := range r.nodes {
		here := e.state.Exists() && !e.state.Lost
		switch silence := r.silence(e); {
		case !here && r.fresh(e):
			out = append(out, Due{ID: id, Command: node.Join{ID: id, MemoryMB: e.beat.MemoryMb, CPUMillicores: e.beat.CpuMillicores}})
		case here && silence >= r.lossAfter:
			out = append(out, Due{ID: id, Command: node.Lose{Silence: silence.Round(100 * time.Millisecond)}, Revision: e.revision})
		}
	}
	slices.SortFunc(out, func(a, b Due) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Quiet are the nodes that are to be there and were not heard of lately.
func (r *Roster) Quiet() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for id, e := range r.nodes {
		if e.state.Exists() && !e.state.Lost && !r.fresh(e) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Report is what is known of one node.
type Report struct {
	State node.State
	// Beat is its last heartbeat heard in this run; nil for none.
	Beat *nodev1.Node
}

// List reports on every node that ever joined, by id.
func (r *Roster) List() []Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Report
	for _, e := range r.nodes {
		if e.state.Exists() {
			out = append(out, Report{State: e.state, Beat: e.beat})
		}
	}
	slices.SortFunc(out, func(a, b Report) int { return cmp.Compare(a.State.ID, b.State.ID) })
	return out
}

// Get reports on one node; ok is false when it was never heard of.
func (r *Roster) Get(id string) (report Report, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.nodes[id]
	if !ok {
		return Report{}, false
	}
	return Report{State: e.state, Beat: e.beat}, true
}
