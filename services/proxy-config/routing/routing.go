// Package routing folds the events of all deployments into the routes that every
// edge must have, and into what is still to be said in the log about them. It is
// pure: no clock, no I/O.
//
// A host goes to the healthy, running, not retired instances of the newest release
// that has any; a release takes no traffic before one of its instances was healthy,
// and an older one serves until then. A host whose app cannot serve keeps a route
// without upstreams that says why; a host that nobody holds any more has none. A
// custom domain is a host from when it is verified until it is removed or lost.
package routing

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Fold is the state of all deployments and domains. Use New; it is not safe for
// concurrent use.
type Fold struct {
	deployments map[string]*deployment
	domains     map[subjects.Aggregate]domain
	byHost      map[string]map[string]*deployment
	sequence    uint64
}

// New returns the fold of no events.
func New() *Fold {
	return &Fold{deployments: map[string]*deployment{}, domains: map[subjects.Aggregate]domain{}, byHost: map[string]map[string]*deployment{}}
}

// Sequence is that of the last event folded in.
func (f *Fold) Sequence() uint64 { return f.sequence }

// Apply folds one event in and returns the deployment that it says something of and
// the hosts that it may have changed; neither when it says nothing of routes, or was
// folded in before.
func (f *Fold) Apply(rec eventstore.Recorded) (id string, hosts []string) {
	if rec.Sequence <= f.sequence {
		return "", nil
	}
	switch rec.Aggregate.Kind {
	case subjects.Deployment:
		f.sequence = rec.Sequence
		return f.applyDeployment(rec)
	case subjects.Domain:
		f.sequence = rec.Sequence
		return f.applyDomain(rec)
	}
	return "", nil
}

func (f *Fold) applyDeployment(rec eventstore.Recorded) (id string, hosts []string) {
	id = rec.Aggregate.ID
	d := f.deployments[id]
	if d == nil {
		if _, first := rec.Payload.(*deploymentv1.DeploymentRequested); !first {
			return "", nil
		}
		d = newDeployment(id, rec.Aggregate.Org)
		f.deployments[id] = d
	}
	d.evolve(rec)
	for _, host := range d.hosts {
		f.index(host, d)
	}
	hosts = d.hosts
	if d.over() {
		f.forget(d)
	}
	return id, hosts
}

func (f *Fold) index(host string, d *deployment) {
	if f.byHost[host] == nil {
		f.byHost[host] = map[string]*deployment{}
	}
	f.byHost[host][d.id] = d
}

func (f *Fold) unindex(host string, d *deployment) {
	delete(f.byHost[host], d.id)
	if len(f.byHost[host]) == 0 {
		delete(f.byHost, host)
	}
}

func (f *Fold) forget(d *deployment) {
	delete(f.deployments, d.id)
	for _, host := range d.hosts {
		f.unindex(host, d)
	}
}

// Hosts are all hosts of which something is known.
func (f *Fold) Hosts() []string { return slices.Sorted(maps.Keys(f.byHost)) }

// Deployments are the ids of all deployments that are not over.
func (f *Fold) Deployments() []string { return slices.Sorted(maps.Keys(f.deployments)) }

// Wanted is the route that the host must have; nil for none.
func (f *Fold) Wanted(host string) *routingv1.Route {
	owner := f.owner(host)
	if owner == nil {
		return nil
	}
	return owner.route(host)
}

// owner is who holds the name; the last to take it, should two seem to.
func (f *Fold) owner(host string) *deployment {
	var owner *deployment
	var last uint64
	for _, d := range f.byHost[host] {
		if since, held := d.holds(host); held && (owner == nil || since > last) {
			owner, last = d, since
		}
	}
	return owner
}

// Fact is what is to be recorded once every live edge serves the hosts' routes.
type Fact struct {
	Aggregate subjects.Aggregate
	// ID is the same however often the fact is found due.
	ID string
	// Hosts are those whose routes must have been applied.
	Hosts []string
	// Bound or Removed is set, without the revision.
	Bound   *deploymentv1.RouteBound
	Removed *deploymentv1.RouteRemoved
	// Causation, Correlation and TraceParent are for the event.
	Causation, Correlation, TraceParent string
}

// Payload is the fact's message, with the revision that every edge acknowledged.
func (fact Fact) Payload(revision uint64) proto.Message {
	if fact.Bound != nil {
		fact.Bound.Revision = revision
		return fact.Bound
	}
	fact.Removed.Revision = revision
	return fact.Removed
}

// Due returns what the log does not say yet about the deployment's routes: that
// they are bound, when hosts or instances differ from the last RouteBound, or that
// they are removed, when it was stopped or destroyed after one. An app that is
// down for a moment stays bound: nothing was asked for.
func (f *Fold) Due(id string) (Fact, bool) {
	d := f.deployments[id]
	if d == nil {
		return Fact{}, false
	}
	fact := Fact{
		Aggregate: subjects.Of(d.org, subjects.Deployment, d.id),
		Causation: d.cause, Correlation: d.correlation, TraceParent: d.traceParent,
	}
	if d.phase != phaseServing {
		if !d.bound.routed {
			return Fact{}, false
		}
		fact.Hosts = d.bound.hosts
		fact.Removed = &deploymentv1.RouteRemoved{Hosts: d.bound.hosts}
		fact.ID = factID("RouteRemoved", d)
		return fact, true
	}
	release, instances := d.serving()
	var ids []string
	for _, i := range instances {
		ids = append(ids, i.id)
	}
	for _, host := range d.hosts {
		if f.owner(host) == d {
			fact.Hosts = append(fact.Hosts, host)
		}
	}
	same := d.bound.routed && d.bound.release == release &&
		slices.Equal(d.bound.instances, ids) && slices.Equal(d.bound.hosts, fact.Hosts)
	if same || len(ids) == 0 || len(fact.Hosts) == 0 {
		return Fact{}, false
	}
	fact.Bound = &deploymentv1.RouteBound{ReleaseId: release, Hosts: fact.Hosts, InstanceIds: ids}
	fact.ID = factID("RouteBound", d, append(append([]string{release}, fact.Hosts...), ids...)...)
	return fact, true
}

// factID is made from what the log says so far: a fact found due again after a
// crash has the same one.
func factID(kind string, d *deployment, of ...string) string {
	sum := fnv.New64a()
	// A hash never fails to be written to.
	_, _ = sum.Write([]byte(strings.Join(of, "\x00")))
	return fmt.Sprintf("%s-%s-%d-%x", kind, d.id, d.bound.sequence, sum.Sum64())
}
