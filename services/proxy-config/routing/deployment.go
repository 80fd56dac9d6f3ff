package routing

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// phase is what the operator asked for, as far as routes are concerned.
type phase int

const (
	phaseServing phase = iota
	phaseStopped
	phaseDestroyed
)

// deployment is what the events of one deployment mean for its routes. A fact
// must mean the same here and in the scheduler's fold: an instance is known from
// DeploymentScheduled on, and its attempt says whether a fact is stale.
type deployment struct {
	id, org string
	host    string
	custom  map[string]custom // by host: the verified domains of its owner
	hosts   []string          // all of them, sorted
	phase   phase
	// ended is true once its destroy has: until then a RouteBound may come that was
	// recorded before the destroy was heard of.
	ended       bool
	namesHeld   bool
	heldSince   uint64 // sequence of the event that took the names
	live        string // release that serves; empty for none
	wasLive     bool
	next        string // release rolling out; empty for none
	numbers     map[string]uint32
	instances   map[string]*instance
	drain       *durationpb.Duration   // of the last release asked for; nil when it has none
	policy      *routingv1.RoutePolicy // nil for the edges' defaults; never changed
	bound       binding
	sequence    uint64
	traceParent string
	cause       string // id of the last event folded in
	correlation string
}

type instance struct {
	id, release, address string
	attempt              uint32
	running              bool
	healthy              bool
	everHealthy          bool
	retired              bool
	// leaving instances take traffic until one that stands in for them can, or, when
	// nobody stands in for them, until any other of the release can.
	leaving     bool
	standsInFor string
}

// binding is what the log says that every edge does.
type binding struct {
	routed    bool
	release   string
	hosts     []string
	instances []string
	// sequence is that of the RouteBound or RouteRemoved it was read from.
	sequence uint64
}

func newDeployment(id, org string) *deployment {
	return &deployment{id: id, org: org, custom: map[string]custom{}, numbers: map[string]uint32{}, instances: map[string]*instance{}}
}

// setHosts makes hosts what the deployment's own one and its domains come to.
func (d *deployment) setHosts() {
	d.hosts = d.hosts[:0:0]
	if d.host != "" {
		d.hosts = append(d.hosts, d.host)
	}
	for host := range d.custom {
		if host != d.host {
			d.hosts = append(d.hosts, host)
		}
	}
	slices.Sort(d.hosts)
}

// holds reports whether the host is the deployment's, and since which event. Its
// domains stay its own while it has given its subdomain back.
func (d *deployment) holds(host string) (since uint64, held bool) {
	if host == d.host {
		return d.heldSince, d.namesHeld
	}
	c, held := d.custom[host]
	return c.since, held && d.phase != phaseDestroyed
}

func (d *deployment) evolve(rec eventstore.Recorded) {
	d.sequence, d.cause, d.correlation = rec.Sequence, rec.ID, rec.Correlation
	switch e := rec.Payload.(type) {
	case *deploymentv1.DeploymentRequested:
		// Its custom domain, if it asked for one, has events of its own.
		d.host = subjects.HostKey(e.GetHost())
		d.setHosts()
		d.rollOut(e.GetRelease(), rec)
	case *deploymentv1.RestartRequested:
		d.rollOut(e.GetRelease(), rec)
	case *deploymentv1.RollbackRequested:
		d.rollOut(e.GetRelease(), rec)
	case *deploymentv1.ScaleRequested:
		d.traceParent = rec.TraceParent
		d.leave(e.GetReleaseId(), e.GetLeavingInstanceIds())
	case *deploymentv1.ScaleFailed:
		d.leave(e.GetReleaseId(), e.GetLeavingInstanceIds())
	case *deploymentv1.DeploymentScheduled:
		d.scheduled(e)
	case *deploymentv1.DeploymentRunning:
		d.running(e)
	case *deploymentv1.ReleaseFailed:
		d.releaseFailed(e)
	case *deploymentv1.StopRequested:
		d.end(phaseStopped, rec)
	case *deploymentv1.DeploymentStopped:
		d.phase, d.live, d.next = phaseStopped, "", ""
		d.retire(func(*instance) bool { return true })
	case *deploymentv1.DestroyRequested:
		d.namesHeld = false
		d.end(phaseDestroyed, rec)
	case *deploymentv1.DeploymentDestroyed:
		d.namesHeld, d.ended = false, true
		d.phase, d.live, d.next = phaseDestroyed, "", ""
		d.retire(func(*instance) bool { return true })
	case *deploymentv1.IngressConfigured:
		d.policy = e.GetPolicy()
	case *deploymentv1.InstancesRescheduled:
		d.rescheduled(e)
	case *deploymentv1.InstancesRetired:
		d.retire(func(i *instance) bool {
			return i.release == e.GetReleaseId() && slices.Contains(e.GetInstanceIds(), i.id)
		})
	case *deploymentv1.RouteBound:
		d.bound = binding{true, e.GetReleaseId(), sorted(e.GetHosts()), sorted(e.GetInstanceIds()), rec.Sequence}
	case *deploymentv1.RouteRemoved:
		d.bound = binding{sequence: rec.Sequence}
	default:
		d.instanceFact(rec)
	}
	d.unbind()
}

func (d *deployment) rollOut(r *deploymentv1.Release, rec eventstore.Recorded) {
	d.numbers[r.GetId()], d.drain = r.GetNumber(), r.GetDeadlines().GetDrain()
	d.next, d.phase, d.traceParent = r.GetId(), phaseServing, rec.TraceParent
	if !d.namesHeld {
		d.namesHeld, d.heldSince = true, rec.Sequence
	}
}

func (d *deployment) end(p phase, rec eventstore.Recorded) {
	d.phase, d.traceParent = p, rec.TraceParent
	d.retire(func(*instance) bool { return true })
}

func (d *deployment) scheduled(e *deploymentv1.DeploymentScheduled) {
	if d.next != e.GetReleaseId() && d.live != e.GetReleaseId() {
		return
	}
	for _, p := range e.GetPlacements() {
		d.instances[p.GetInstanceId()] = &instance{id: p.GetInstanceId(), release: e.GetReleaseId()}
	}
}

func (d *deployment) running(e *deploymentv1.DeploymentRunning) {
	if d.next != e.GetReleaseId() {
		return
	}
	d.live, d.next, d.wasLive = d.next, "", true
	maps.DeleteFunc(d.numbers, func(release string, _ uint32) bool { return release != d.live })
	d.retire(func(i *instance) bool {
		return i.release != d.live || slices.Contains(e.GetRetiredInstanceIds(), i.id)
	})
}

// releaseFailed ends a rollout badly. A deployment that never served gives its
// names back with it: its hosts may be another's at once.
func (d *deployment) releaseFailed(e *deploymentv1.ReleaseFailed) {
	if d.next != e.GetReleaseId() {
		return
	}
	d.next = ""
	d.retire(func(i *instance) bool { return i.release == e.GetReleaseId() })
	if d.live == "" {
		d.phase, d.namesHeld = phaseStopped, d.wasLive
	}
}

func (d *deployment) instanceFact(rec eventstore.Recorded) {
	fact, ok := rec.Payload.(interface {
		GetReleaseId() string
		GetInstanceId() string
	})
	if !ok {
		return
	}
	i := d.instances[fact.GetInstanceId()]
	if i == nil || i.release != fact.GetReleaseId() {
		return
	}
	switch e := rec.Payload.(type) {
	case *deploymentv1.ContainerStarted:
		if e.GetAttempt() < i.attempt {
			return
		}
		if e.GetAttempt() > i.attempt {
			i.healthy = false
		}
		i.attempt, i.running, i.address = e.GetAttempt(), true, e.GetAddress()
	case *deploymentv1.ContainerExited:
		if e.GetAttempt() >= i.attempt {
			i.attempt, i.running, i.healthy = e.GetAttempt(), false, false
		}
	case *deploymentv1.ContainerRemoved:
		i.running, i.healthy = false, false
		if i.retired {
			delete(d.instances, i.id)
		}
	case *deploymentv1.InstanceHealthy:
		if e.GetAttempt() == i.attempt && i.running {
			i.healthy, i.everHealthy = true, true
		}
	case *deploymentv1.InstanceUnhealthy:
		if e.GetAttempt() == i.attempt {
			i.healthy = false
		}
	}
}

func (d *deployment) retire(which func(*instance) bool) {
	for _, i := range d.instances {
		i.retired = i.retired || which(i)
	}
}

// route is what the host must be sent to; nil for nowhere.
func (d *deployment) route(host string) *routingv1.Route {
	if _, held := d.holds(host); !held {
		return nil
	}
	release, instances := d.serving()
	r := &routingv1.Route{
		Host: host, OrgId: d.org, DeploymentId: d.id, ReleaseId: release,
		State: d.state(len(instances)), Sequence: d.sequence, Policy: d.withDrain(d.policy), Kind: routingv1.RouteKind_ROUTE_KIND_CUSTOM_DOMAIN,
	}
	if host == d.host {
		r.Kind = routingv1.RouteKind_ROUTE_KIND_SUBDOMAIN
	}
	for _, i := range instances {
		r.Upstreams = append(r.Upstreams, &routingv1.Upstream{InstanceId: i.id, Address: i.address})
	}
	return r
}

func (d *deployment) state(healthy int) routingv1.RouteState {
	switch {
	case d.phase != phaseServing:
		return routingv1.RouteState_ROUTE_STATE_STOPPED
	case healthy > 0:
		return routingv1.RouteState_ROUTE_STATE_SERVING
	case d.live == "":
		return routingv1.RouteState_ROUTE_STATE_STARTING
	default:
		return routingv1.RouteState_ROUTE_STATE_DOWN
	}
}

// over reports whether nothing will ever be wanted of the deployment again.
func (d *deployment) over() bool { return d.ended && !d.bound.routed }

func sorted(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return out
}
