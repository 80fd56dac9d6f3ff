// Package fleet holds every deployment's folded state in memory, and what is
// promised on each node. It is safe for concurrent use.
package fleet

import (
	"maps"
	"sync"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/placement"
)

// Fleet is all deployments by id.
type Fleet struct {
	mu     sync.RWMutex
	states map[string]deployment.State
	// byInstance finds the deployment of an instance that may still exist.
	byInstance map[string]string
	used       map[string]placement.Use
}

// New returns an empty fleet.
func New() *Fleet {
	return &Fleet{states: map[string]deployment.State{}, byInstance: map[string]string{}, used: map[string]placement.Use{}}
}

// Apply folds an event in and returns the deployment's state after it. An event
// that is folded already changes nothing.
func (f *Fleet) Apply(rec eventstore.Recorded) deployment.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := rec.Aggregate.ID
	before := f.states[id]
	if rec.Sequence <= before.Sequence {
		return before
	}
	after := deployment.Evolve(before, rec)
	f.states[id] = after
	f.count(before, false)
	f.count(after, true)
	return after
}

// count adds a deployment's instances to what is promised, or takes them off.
func (f *Fleet) count(s deployment.State, add bool) {
	memory, cpu := uint64(s.Tier.GetMemoryLimitMb()), uint64(s.Tier.GetCpuLimitMillicores())
	for id, i := range s.Instances {
		u := f.used[i.Node]
		if add {
			u.MemoryMB, u.CPUMillicores, u.Instances = u.MemoryMB+memory, u.CPUMillicores+cpu, u.Instances+1
			f.byInstance[id] = s.ID
		} else {
			u.MemoryMB, u.CPUMillicores, u.Instances = u.MemoryMB-memory, u.CPUMillicores-cpu, u.Instances-1
			delete(f.byInstance, id)
		}
		f.used[i.Node] = u
	}
}

// Get returns one deployment's state.
func (f *Fleet) Get(id string) (deployment.State, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	s, ok := f.states[id]
	return s, ok
}

// OfInstance returns the deployment that an instance belongs to.
func (f *Fleet) OfInstance(instance string) (deployment.State, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	id, ok := f.byInstance[instance]
	return f.states[id], ok
}

// Each calls visit with every deployment, in no order.
func (f *Fleet) Each(visit func(deployment.State)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, s := range f.states {
		visit(s)
	}
}

// OnNode are the deployments with an instance on the node.
func (f *Fleet) OnNode(node string) []string {
	var ids []string
	f.Each(func(s deployment.State) {
		for _, i := range s.Instances {
			if i.Node == node {
				ids = append(ids, s.ID)
				break
			}
		}
	})
	return ids
}

// Live counts an organization's deployments on a tier that hold names: those that
// count against its limit.
func (f *Fleet) Live(org, tierSlug string) int {
	n := 0
	f.Each(func(s deployment.State) {
		if s.Org == org && s.Tier.GetSlug() == tierSlug && s.NamesHeld {
			n++
		}
	})
	return n
}

// Used is what instances have been promised on each node.
func (f *Fleet) Used() map[string]placement.Use {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return maps.Clone(f.used)
}
