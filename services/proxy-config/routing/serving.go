package routing

import (
	"slices"
	"strings"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
)

// rescheduled replaces instances of a release. One that was ever healthy on a node
// that is still there takes traffic until its stand-in can; the others take none any
// more. The scheduler's fold must agree with this one.
func (d *deployment) rescheduled(e *deploymentv1.InstancesRescheduled) {
	if e.GetReleaseId() != d.live && e.GetReleaseId() != d.next {
		return
	}
	for n, p := range e.GetPlacements() {
		i := &instance{id: p.GetInstanceId(), release: e.GetReleaseId()}
		if n < len(e.GetReplacedInstanceIds()) {
			i.standsInFor = e.GetReplacedInstanceIds()[n]
		}
		d.instances[i.id] = i
	}
	for _, id := range e.GetReplacedInstanceIds() {
		old := d.instances[id]
		switch {
		case old == nil || old.release != e.GetReleaseId() || old.retired:
		case !e.GetNodeLost() && old.everHealthy:
			old.leaving = true
		default:
			old.retired = true
			d.passOn(old)
		}
	}
}

// passOn has whoever stood in for the instance stand in for whom it did.
func (d *deployment) passOn(old *instance) {
	for _, i := range d.instances {
		if i.standsInFor == old.id {
			i.standsInFor = old.standsInFor
		}
	}
}

// unbind takes back that the edges send traffic to instances that have died, when
// there are others: the edges may go to and fro, so that it has to be said again. The
// scheduler's fold must agree with this one.
func (d *deployment) unbind() {
	kept := 0
	for _, i := range d.instances {
		if !i.retired {
			kept++
		}
	}
	if kept < 2 {
		return
	}
	d.bound.instances = slices.DeleteFunc(slices.Clone(d.bound.instances), func(id string) bool {
		i := d.instances[id]
		return i == nil || !i.healthy
	})
}

// serving returns the newest release with a healthy instance, and those instances
// in a fixed order; no instance when none may take traffic.
func (d *deployment) serving() (release string, instances []*instance) {
	for _, i := range d.instances {
		if !i.ready() {
			continue
		}
		switch {
		case len(instances) == 0 || d.numbers[i.release] > d.numbers[release]:
			release, instances = i.release, []*instance{i}
		case i.release == release:
			instances = append(instances, i)
		}
	}
	instances = d.withoutReplaced(instances)
	slices.SortFunc(instances, func(a, b *instance) int { return strings.Compare(a.id, b.id) })
	return release, instances
}

func (i *instance) ready() bool { return i.running && i.healthy && !i.retired && i.address != "" }

// withoutReplaced leaves out the leaving instances that one of the others stands in
// for, itself or through others.
func (d *deployment) withoutReplaced(ready []*instance) []*instance {
	replaced := map[string]bool{}
	for _, i := range ready {
		for old := d.instances[i.standsInFor]; old != nil && old.leaving && !replaced[old.id]; old = d.instances[old.standsInFor] {
			replaced[old.id] = true
		}
	}
	return slices.DeleteFunc(ready, func(i *instance) bool { return replaced[i.id] })
}
