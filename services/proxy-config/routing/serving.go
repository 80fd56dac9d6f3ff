package routing

import (
	"cmp"
	"maps"
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

// leave has those instances of the live release leave, and those that were leaving
// without a stand-in stay. The scheduler's fold must agree with this one.
func (d *deployment) leave(release string, ids []string) {
	if release == "" || release != d.live || d.phase != phaseServing {
		return
	}
	covered := d.covered()
	for _, i := range d.instances {
		if i.release == release && !i.retired && i.leaving && !covered[i.id] {
			i.leaving = false
		}
	}
	for _, id := range ids {
		i := d.instances[id]
		switch {
		case i == nil || i.release != release || i.retired:
		case i.everHealthy:
			i.leaving = true
		default:
			i.retired = true
			d.passOn(i)
		}
	}
}

// covered are the leaving instances that one which stays stands in for, itself or
// through others.
func (d *deployment) covered() map[string]bool {
	covered := map[string]bool{}
	for _, i := range d.instances {
		if i.retired || i.leaving {
			continue
		}
		for old := d.instances[i.standsInFor]; old != nil && old.leaving && !covered[old.id]; old = d.instances[old.standsInFor] {
			covered[old.id] = true
		}
	}
	return covered
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

// serving returns the newest release that is all healthy, or has no fewer healthy
// instances than an older one, and those instances in a fixed order; no instance when
// none may take traffic. So a release that rolls out takes over whole, and the app has
// never less to serve with than before.
func (d *deployment) serving() (release string, instances []*instance) {
	ready := map[string][]*instance{}
	for _, i := range d.instances {
		if i.ready() {
			ready[i.release] = append(ready[i.release], i)
		}
	}
	oldestFirst := slices.SortedFunc(maps.Keys(ready), func(a, b string) int {
		return cmp.Or(cmp.Compare(d.numbers[a], d.numbers[b]), strings.Compare(a, b))
	})
	for _, id := range oldestFirst {
		if of := d.taking(ready[id]); len(of) >= len(instances) || d.whole(id) {
			release, instances = id, of
		}
	}
	slices.SortFunc(instances, func(a, b *instance) int { return strings.Compare(a.id, b.id) })
	return release, instances
}

// whole reports whether every instance of the release that stays is healthy.
func (d *deployment) whole(release string) bool {
	some := false
	for _, i := range d.instances {
		if i.release != release || i.retired || i.leaving {
			continue
		}
		if !i.ready() {
			return false
		}
		some = true
	}
	return some
}

func (i *instance) ready() bool { return i.running && i.healthy && !i.retired && i.address != "" }

// taking leaves out the leaving instances that one of the others stands in for, itself
// or through others, and those that nobody stands in for while another is ready.
func (d *deployment) taking(ready []*instance) []*instance {
	replaced := map[string]bool{}
	stays := false
	for _, i := range ready {
		stays = stays || !i.leaving
		for old := d.instances[i.standsInFor]; old != nil && old.leaving && !replaced[old.id]; old = d.instances[old.standsInFor] {
			replaced[old.id] = true
		}
	}
	covered := d.covered()
	return slices.DeleteFunc(ready, func(i *instance) bool {
		return replaced[i.id] || stays && i.leaving && !covered[i.id]
	})
}
