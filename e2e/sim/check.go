package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/node"
)

// edgeSilence is how long an edge may say nothing and still be waited for.
const edgeSilence = 5 * time.Second

func (w *world) violate(format string, args ...any) {
	if w.violation == "" {
		w.violation = fmt.Sprintf("at %.2fs: ", w.at().Seconds()) + fmt.Sprintf(format, args...)
		w.note("VIOLATED: %s", w.violation)
	}
}

func (w *world) failed() bool { return w.violation != "" }

// truth is the log folded as it is written, for what must hold at every event.
type truth struct {
	states  map[string]deployment.State
	holders map[string]string // by claim
	bound   map[string]bool   // releases that were
	nodes   map[string]node.State
	// shaken deployments had not all they want to serve with at some time since their
	// rollout was asked for.
	shaken map[string]bool
}

func newTruth() *truth {
	return &truth{states: map[string]deployment.State{}, holders: map[string]string{}, bound: map[string]bool{}, nodes: map[string]node.State{}, shaken: map[string]bool{}}
}

// observe checks what must hold at this very event.
func (w *world) observe(e eventstore.Recorded) {
	t := w.truth
	switch f := e.Payload.(type) {
	case *claimv1.ClaimTaken:
		if h := t.holders[e.Aggregate.ID]; h != "" && h != f.Holder {
			w.violate("two live claims of %s %q: %s takes what %s holds", f.Kind, f.Name, w.short(id(f.Holder)), w.short(id(h)))
		}
		t.holders[e.Aggregate.ID] = f.Holder
		return
	case *claimv1.ClaimReleased:
		if t.holders[e.Aggregate.ID] == f.Holder {
			delete(t.holders, e.Aggregate.ID)
		}
		return
	case *deploymentv1.RouteBound:
		t.bound[f.ReleaseId] = true
		if !strings.Contains(e.ID, " again ") {
			w.checkBound(e, f)
		}
	case *deploymentv1.RouteRemoved:
		if !strings.Contains(e.ID, " again ") {
			w.checkRemoved(e, f)
		}
	case *deploymentv1.DeploymentRunning:
		if !t.bound[f.ReleaseId] {
			w.violate("%s is running and was never bound: its old instances retire while edges still send to them", w.short(f.ReleaseId))
		}
	}
	switch e.Aggregate.Kind {
	case subjects.Node:
		t.nodes[e.Aggregate.ID] = node.Evolve(t.nodes[e.Aggregate.ID], e)
	case subjects.Deployment:
		before := t.states[e.Aggregate.ID]
		after := deployment.Evolve(before, e)
		t.states[e.Aggregate.ID] = after
		w.checkServing(before, after, e)
		switch e.Payload.(type) {
		case *deploymentv1.DeploymentScheduled, *deploymentv1.InstancesRescheduled:
			w.checkRoom()
		}
	}
}

// checkServing: while a release rolls out, an app that has all its instances is sent to
// as many, of the one release or the other.
func (w *world) checkServing(before, after deployment.State, e eventstore.Recorded) {
	if after.Next == nil || after.Live == nil {
		return
	}
	if before.Next == nil || before.Next.Id != after.Next.Id {
		w.truth.shaken[after.ID] = false
	}
	n := 0
	for _, i := range after.Instances {
		if i.ReleaseID == after.Live.Id && i.Healthy && !i.Retiring && !i.Leaving {
			n++
		}
	}
	if n < after.Count {
		w.truth.shaken[after.ID] = true
	}
	bound, ok := e.Payload.(*deploymentv1.RouteBound)
	if ok && !w.truth.shaken[after.ID] && bound.ReleaseId == after.Next.Id && len(bound.InstanceIds) < after.Count {
		w.violate("%s had %d instances to serve with, and its release %s took over with %d", w.short(after.ID), after.Count, w.short(bound.ReleaseId), len(bound.InstanceIds))
	}
}

func id(holder string) string {
	_, id, _ := strings.Cut(holder, "/")
	return id
}

// waitedFor are the edges that proxy-config hears: those whose word RouteBound is.
func (w *world) waitedFor(visit func(name string, e *edge)) {
	for _, name := range sortedKeys(w.edges) {
		if e := w.edges[name]; !e.p.dead && !e.since.IsZero() && e.by == w.proxy && time.Since(e.heard) < edgeSilence {
			visit(name, e)
		}
	}
}

func (w *world) checkBound(e eventstore.Recorded, f *deploymentv1.RouteBound) {
	w.waitedFor(func(name string, edge *edge) {
		for _, host := range f.Hosts {
			r, _ := edge.table.Lookup(host)
			if r.GetDeploymentId() != e.Aggregate.ID || !slices.Equal(upstreams(r), f.InstanceIds) {
				w.violate("RouteBound says that every edge sends %s to %s, but %s sends it to %v", host, w.shorts(f.InstanceIds), name, w.shorts(upstreams(r)))
			}
		}
	})
}

func (w *world) checkRemoved(e eventstore.Recorded, f *deploymentv1.RouteRemoved) {
	w.waitedFor(func(name string, edge *edge) {
		for _, host := range f.Hosts {
			if r, _ := edge.table.Lookup(host); r.GetDeploymentId() == e.Aggregate.ID && len(r.GetUpstreams()) > 0 {
				w.violate("RouteRemoved says that no edge sends %s to %s, but %s does", host, w.short(e.Aggregate.ID), name)
			}
		}
	})
}

func upstreams(r *routingv1.Route) []string {
	var ids []string
	for _, u := range r.GetUpstreams() {
		ids = append(ids, u.InstanceId)
	}
	slices.Sort(ids)
	return ids
}

func (w *world) shorts(ids []string) []string {
	var out []string
	for _, id := range ids {
		out = append(out, w.short(id))
	}
	return out
}

// promised is what instances may use of each node.
func promised(states map[string]deployment.State) map[string]uint32 {
	used := map[string]uint32{}
	for _, s := range states {
		for _, i := range s.Instances {
			used[i.Node] += s.Tier.GetMemoryLimitMb()
		}
	}
	return used
}

// checkRoom: no node is promised more than it has.
func (w *world) checkRoom() {
	used := promised(w.truth.states)
	for _, node := range sortedKeys(used) {
		if used[node] > w.plan.room {
			w.violate("%s has %d MB and is promised %d", node, w.plan.room, used[node])
		}
	}
}

// stopping is called when an agent is about to end a container: nobody who uses the
// app may be left without one because of it, unless that was asked for.
func (w *world) stopping(m *machine, container string) {
	c := m.Containers()[container]
	if c.State != runtime.StateRunning || time.Now().Before(m.missing) {
		return
	}
	d, instance := c.Labels[runtime.LabelDeployment], c.Labels[runtime.LabelInstance]
	s := w.truth.states[d]
	if s.Intent != deployment.IntentNone || s.Status == deployment.Stopped || s.Status == deployment.Destroyed || !w.liveIsSound(s) || !w.answers(instance, c.Address) {
		return
	}
	w.waitedFor(func(name string, e *edge) {
		for _, host := range s.Names() {
			r, _ := e.table.Lookup(host)
			if r.GetDeploymentId() != d || !slices.ContainsFunc(r.Upstreams, func(u *routingv1.Upstream) bool { return u.Address == c.Address && u.InstanceId == instance }) {
				continue
			}
			if !slices.ContainsFunc(r.Upstreams, func(u *routingv1.Upstream) bool {
				return u.InstanceId != instance && w.answers(u.InstanceId, u.Address)
			}) {
				w.violate("%s ends %s, to which %s still sends %s, and nothing else serves it", m.id, w.short(instance), name, host)
			}
		}
	})
}
