package sim

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
	"github.com/slipway-paas/slipway/services/proxy-config/routing"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// checkEnd is what must hold once everything is quiet.
func (w *world) checkEnd() {
	events, err := w.wholeLog(0)
	if err != nil {
		w.violate("the log cannot be read: %v", err)
		return
	}
	states, fold := map[string]deployment.State{}, routing.New()
	for _, e := range events {
		fold.Apply(e)
		if e.Aggregate.Kind == subjects.Deployment {
			states[e.Aggregate.ID] = deployment.Evolve(states[e.Aggregate.ID], e)
		}
	}
	for _, check := range []func(){
		func() { w.checkTerminal(events, states) },
		func() { w.checkAnswers(events, states) },
		func() { w.checkClaims(states) },
		func() { w.checkFolds(states, fold) },
		func() { w.checkContainers(states) },
		func() { w.checkRoutes(states) },
		func() { w.checkKeys(states) },
	} {
		if check(); w.failed() {
			return
		}
	}
}

// checkTerminal: every command in the log has come to its end, in time.
func (w *world) checkTerminal(events []eventstore.Recorded, states map[string]deployment.State) {
	c := rolloutConfig
	slack := 12*time.Second + w.schedDown
	rollout := c.PlacementTimeout + c.StartTimeout + c.HealthyTimeout + slack
	for n, e := range events {
		var release string
		bound := rollout
		switch f := e.Payload.(type) {
		case *deploymentv1.DeploymentRequested:
			release = f.Release.Id
		case *deploymentv1.RestartRequested:
			release = f.Release.Id
		case *deploymentv1.RollbackRequested:
			release = f.Release.Id
		case *deploymentv1.ScaleRequested:
		case *deploymentv1.StopRequested, *deploymentv1.DestroyRequested:
			bound = c.StopTimeout + slack
		default:
			continue
		}
		end := slices.IndexFunc(events[n+1:], func(o eventstore.Recorded) bool {
			return o.Aggregate == e.Aggregate && ends(e.Payload, o.Payload, release)
		})
		if end < 0 {
			w.violate("%s of %s never ended: it is %s, %q", e.Type(), w.short(e.Aggregate.ID), states[e.Aggregate.ID].Status, states[e.Aggregate.ID].Reason)
			return
		}
		if took := events[n+1+end].Time.Sub(e.Time); took > bound {
			w.violate("%s of %s took %s to end, its deadlines give it %s", e.Type(), w.short(e.Aggregate.ID), took, bound)
			return
		}
	}
}

// ends reports whether an event is the end of what was asked for, or asks for
// something else in its place.
func ends(asked, e proto.Message, release string) bool {
	if _, scale := asked.(*deploymentv1.ScaleRequested); scale {
		switch e.(type) {
		case *deploymentv1.DeploymentScaled, *deploymentv1.ScaleFailed, *deploymentv1.ScaleRequested, *deploymentv1.StopRequested, *deploymentv1.DestroyRequested:
			return true
		}
		return false
	}
	switch f := e.(type) {
	case *deploymentv1.DeploymentDestroyed:
		return true
	case *deploymentv1.DestroyRequested:
		_, same := asked.(*deploymentv1.DestroyRequested)
		return !same
	case *deploymentv1.DeploymentStopped:
		_, destroy := asked.(*deploymentv1.DestroyRequested)
		return !destroy
	case *deploymentv1.StopRequested:
		return release != ""
	case *deploymentv1.DeploymentRunning:
		return f.ReleaseId == release
	case *deploymentv1.ReleaseFailed:
		return f.ReleaseId == release
	}
	return false
}

// checkAnswers: what an operator was told is in the log, once.
func (w *world) checkAnswers(events []eventstore.Recorded, states map[string]deployment.State) {
	written := map[string]int{}
	for _, e := range events {
		if e.Aggregate.Kind == subjects.Deployment && e.Actor != "" {
			written[e.Actor]++
		}
	}
	for _, who := range sortedKeys(written) {
		if written[who] > 1 {
			w.violate("%s was done %d times", who, written[who])
			return
		}
	}
	for _, a := range w.answered {
		if a.err != nil {
			if !understood(a.err) {
				w.violate("%s %s was answered %v", a.item.id, a.item.what, a.err)
				return
			}
			continue
		}
		s := states[a.id]
		switch {
		case !s.Exists():
			w.violate("%s was accepted, and the log has no %s", a.item.id, a.id)
		case (a.item.what == "create" || a.item.what == "restart" || a.item.what == "rollback") && written[a.item.id] == 0:
			w.violate("%s %s of %s was accepted and is not in the log", a.item.id, a.item.what, w.short(a.id))
		case a.sequence > s.Sequence:
			w.violate("%s was answered with event %d of %s, whose last is %d", a.item.id, a.sequence, w.short(a.id), s.Sequence)
		case a.item.what == "destroy" && s.Status != deployment.Destroyed:
			w.violate("%s destroy of %s was accepted, and it is %s", a.item.id, w.short(a.id), s.Status)
		default:
			continue
		}
		return
	}
}

// checkClaims: names that are held are claimed, and no others.
func (w *world) checkClaims(states map[string]deployment.State) {
	held := map[string]int{}
	for _, h := range w.truth.holders {
		held[id(h)]++
	}
	names := map[string]string{}
	for _, d := range sortedKeys(states) {
		s, want := states[d], 0
		if s.NamesHeld {
			want = len(s.Names())
			for _, name := range s.Names() {
				if other, twice := names[name]; twice {
					w.violate("%s is held by %s and by %s", name, w.short(other), w.short(d))
					return
				}
				names[name] = d
			}
		}
		if held[d] != want {
			w.violate("%s (%s) holds %d names and has %d claims", w.short(d), s.Status, want, held[d])
			return
		}
	}
}

// checkFolds: the log folded from zero is what the parts have, and what they wrote.
func (w *world) checkFolds(states map[string]deployment.State, fold *routing.Fold) {
	desired, targets := map[string]*nodev1.DesiredInstance{}, map[string]*healthv1.Target{}
	for _, d := range sortedKeys(states) {
		live, _ := w.scheduler.Deployment(d)
		if diff := cmp.Diff(inWords(states[d]), inWords(live)); diff != "" {
			w.violate("the scheduler's %s is not what the log folds to (-log +live):\n%s", w.short(d), diff)
			return
		}
		maps.Copy(desired, deployment.Desired(states[d]))
		maps.Copy(targets, deployment.Targets(states[d]))
	}
	sameView(w, w.desired, desired, func(m *nodev1.DesiredInstance) { m.Sequence = 0 })
	sameView(w, w.targets, targets, func(m *healthv1.Target) { m.Sequence = 0 })
	routes := map[string]*routingv1.Route{}
	for _, host := range fold.Hosts() {
		if r := fold.Wanted(host); r != nil {
			routes[host] = r
		}
	}
	sameView(w, w.routes, routes, func(m *routingv1.Route) { m.Sequence = 0 })
	for _, d := range fold.Deployments() {
		if _, due := fold.Due(d); due {
			w.violate("proxy-config still has something to say of %s", w.short(d))
		}
	}
}

// inWords is all of a state, to be compared.
func inWords(s deployment.State) string {
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func sameView[T proto.Message](w *world, b *bucket[T], want map[string]T, plain func(T)) {
	have := map[string]T{}
	for _, e := range b.all(">") {
		plain(e.Value)
		have[e.Key] = e.Value
	}
	for _, m := range want {
		plain(m)
	}
	if diff := cmp.Diff(want, have, protocmp.Transform()); diff != "" {
		w.violate("the view %s is not what the log folds to (-log +view):\n%s", b.name, diff)
	}
}

// checkContainers: wanted instances run, and nothing else does.
func (w *world) checkContainers(states map[string]deployment.State) {
	there := map[string]int{}
	for _, m := range w.machines {
		if m.lost {
			continue
		}
		for _, c := range m.Containers() {
			d, instance := c.Labels[runtime.LabelDeployment], c.Labels[runtime.LabelInstance]
			i := states[d].Instances[instance]
			if i == nil || i.Retiring || i.Node != m.id {
				w.violate("%s still has a container of %s (%s), which is %s", m.id, w.short(instance), w.short(d), states[d].Status)
				return
			}
			there[instance]++
		}
	}
	for _, d := range sortedKeys(states) {
		s := states[d]
		for _, id := range sortedKeys(s.Instances) {
			switch i := s.Instances[id]; {
			case w.lost(i.Node):
				if w.steady(s) && !i.Retiring && w.roomLeft(states) {
					w.violate("%s of %s is to run on %s, which is lost, and there is room elsewhere", w.short(id), w.short(d), i.Node)
					return
				}
				continue
			case w.steady(s) && w.truth.nodes[i.Node].Drain && w.roomLeft(states):
				w.violate("%s of %s still runs on %s, which is being drained, and there is room elsewhere", w.short(id), w.short(d), i.Node)
			case i.Retiring:
				w.violate("%s of %s is retiring for ever", w.short(id), w.short(d))
			case there[id] > 1:
				w.violate("%s has %d containers", w.short(id), there[id])
			case there[id] == 0 && w.steady(s):
				w.violate("%s of %s is to run and has no container", w.short(id), w.short(d))
			default:
				continue
			}
			return
		}
		if n := w.reached(s); w.steady(s) && (n > s.Count || n < s.Count && n == len(s.Instances)) {
			w.violate("%s is running with %d instances, %d are wanted", w.short(d), n, s.Count)
			return
		}
		if s.Scale != nil {
			w.violate("%s is being scaled for ever", w.short(d))
			return
		}
	}
}

func (w *world) lost(node string) bool {
	return slices.ContainsFunc(w.machines, func(m *machine) bool { return m.id == node && m.lost })
}

// roomLeft reports whether a node that is there, and takes some, could take one more
// instance.
func (w *world) roomLeft(states map[string]deployment.State) bool {
	used := promised(states)
	return slices.ContainsFunc(w.machines, func(m *machine) bool {
		return !m.lost && !w.truth.nodes[m.id].Cordoned && used[m.id]+instanceMB <= w.plan.room
	})
}

// reached counts the instances on nodes that are there.
func (w *world) reached(s deployment.State) int {
	n := 0
	for _, i := range s.Instances {
		if !w.lost(i.Node) {
			n++
		}
	}
	return n
}

// steady reports whether the live release's app would run and answer for good.
func (w *world) steady(s deployment.State) bool {
	return s.Status == deployment.Running && w.liveIsSound(s)
}

// liveIsSound reports whether the app that serves does not fail by itself.
func (w *world) liveIsSound(s deployment.State) bool {
	if s.Live == nil || w.createOf[s.ID] == nil {
		return false
	}
	apps := w.createOf[s.ID].apps
	a := apps[min(int(w.numberOf[s.Live.Id])-1, len(apps)-1)]
	return a == serves || a == late
}

// checkRoutes: no route leads to an instance that is gone, and what runs is reached.
func (w *world) checkRoutes(states map[string]deployment.State) {
	for _, name := range sortedKeys(w.edges) {
		t := w.edges[name].table
		for _, r := range t.Routes() {
			s := states[r.DeploymentId]
			if !s.NamesHeld {
				w.violate("%s has a route for %s to %s, which has not that name", name, r.Host, w.short(r.DeploymentId))
				return
			}
			for _, u := range r.Upstreams {
				_, c, ok := w.containerOf(u.InstanceId)
				if w.steady(s) && w.reached(s) > 0 && (!ok || c.Address != u.Address) {
					w.violate("%s sends %s to %s at %s, which is gone", name, r.Host, w.short(u.InstanceId), u.Address)
					return
				}
				if i := s.Instances[u.InstanceId]; i == nil || i.Retiring {
					w.violate("%s sends %s to %s, which is not to serve", name, r.Host, w.short(u.InstanceId))
					return
				}
			}
		}
		for _, d := range sortedKeys(states) {
			s := states[d]
			if !w.steady(s) || w.reached(s) == 0 {
				continue
			}
			for _, host := range s.Names() {
				r, ok := t.Lookup(host)
				if !ok || !table.Serves(r) || r.DeploymentId != d {
					w.violate("%s is running, and %s does not send %s to it: %v", w.short(d), name, host, r)
					return
				}
				if w.reached(s) == s.Count && len(r.Upstreams) != s.Count {
					w.violate("%s runs with %d instances, and %s sends %s to %v", w.short(d), s.Count, name, host, w.shorts(upstreams(r)))
					return
				}
			}
			if s.HealthStatus() != deployment.HealthHealthy || !s.Routed {
				w.violate("%s runs and answers, and is said to be %s, routed %v", w.short(d), s.HealthStatus(), s.Routed)
				return
			}
		}
	}
}

// checkKeys: a destroyed deployment's secrets are gone.
func (w *world) checkKeys(states map[string]deployment.State) {
	for _, d := range w.keys.all() {
		if states[d].Status == deployment.Destroyed {
			w.violate("%s is destroyed and its data key is still there", w.short(d))
			return
		}
	}
}
