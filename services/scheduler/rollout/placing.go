package rollout

import (
	"slices"
	"sync"

	"github.com/google/uuid"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/fleet"
	"github.com/slipway-paas/slipway/services/scheduler/placement"
)

// placing gives instances their nodes, one deployment after the other, and counts what
// it has given away and the fleet does not know of yet.
type placing struct {
	fleet *fleet.Fleet
	nodes Nodes

	mu sync.Mutex
	// asked are placements on their way to the log, doubts those whose append was not
	// answered: they may be there. Both are by deployment.
	asked, doubts map[string]promise
}

// promise is room on nodes given to instances of one deployment.
type promise struct {
	// after is the sequence of the deployment that it was made from: what is folded
	// later shows what became of it.
	after uint64
	nodes []string
	needs placement.Request
}

func newPlacing(all *fleet.Fleet, nodes Nodes) *placing {
	return &placing{fleet: all, nodes: nodes, asked: map[string]promise{}, doubts: map[string]promise{}}
}

func needs(s deployment.State) placement.Request {
	return placement.Request{MemoryMB: s.Tier.GetMemoryLimitMb(), CPUMillicores: s.Tier.GetCpuLimitMillicores()}
}

// first is the command for the release that waits, on the nodes alive now; fits is
// false when none has room.
func (p *placing) first(s deployment.State) (_ deployment.Command, fits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	nodes, reason := placement.Plan(p.nodes.Live(), p.used(s.ID), needs(s), 1)
	if reason != "" {
		return deployment.Defer{ReleaseID: s.Next.Id, Reason: reason}, false
	}
	p.asked[s.ID] = promise{after: s.Sequence, nodes: nodes, needs: needs(s)}
	return deployment.Schedule{ReleaseID: s.Next.Id, Placements: []*deploymentv1.Placement{{
		InstanceId: uuid.Must(uuid.NewV7()).String(), NodeId: nodes[0], ContainerName: s.Next.ContainerName,
	}}}, true
}

// move plans for instances that need another node: for as many as there is room
// for. While there is none the command is what else is due, and the deployment is to
// be asked again when room comes: fits is false.
func (p *placing) move(s deployment.State, m *deployment.Move, otherwise deployment.Command) (_ deployment.Command, fits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	live := p.nodes.Live()
	for n := range live {
		live[n].Unschedulable = live[n].Unschedulable || slices.Contains(m.Avoid, live[n].ID)
	}
	used := p.used(s.ID)
	var nodes []string
	var reason string
	for count := len(m.Replace); count > 0 && len(nodes) == 0; count-- {
		nodes, reason = placement.Plan(live, used, needs(s), count)
	}
	fits = len(nodes) == len(m.Replace)
	if len(nodes) == 0 && len(m.Gone) == 0 {
		if otherwise == nil && !m.Patient {
			return deployment.Defer{ReleaseID: m.ReleaseID, Reason: m.Reason + " " + reason}, fits
		}
		return otherwise, fits
	}
	c := deployment.Reschedule{ReleaseID: m.ReleaseID, NodeLost: m.NodeLost, NotHealthy: m.Patient, Reason: m.Reason,
		Replaced: append(slices.Clone(m.Replace[:len(nodes)]), m.Gone...)}
	for _, node := range nodes {
		id := uuid.Must(uuid.NewV7()).String()
		c.Placements = append(c.Placements, &deploymentv1.Placement{
			InstanceId: id, NodeId: node, ContainerName: s.Subdomain + "-" + id[len(id)-6:]})
	}
	p.asked[s.ID] = promise{after: s.Sequence, nodes: nodes, needs: needs(s)}
	return c, fits
}

// used is what is promised on each node, or may be. What is folded meanwhile counts
// twice, which only defers. The deployment's own promise does not count: deciding anew
// takes its place.
func (p *placing) used(id string) map[string]placement.Use {
	open := slices.Concat(p.open(p.asked, id), p.open(p.doubts, id))
	used := p.fleet.Used()
	for _, one := range open {
		for _, node := range one.nodes {
			u := used[node]
			u.MemoryMB += uint64(one.needs.MemoryMB)
			u.CPUMillicores += uint64(one.needs.CPUMillicores)
			used[node] = u
		}
	}
	return used
}

// open are the promises of which the fleet does not know what became, but for one
// deployment's; the others are forgotten.
func (p *placing) open(promises map[string]promise, but string) []promise {
	var open []promise
	for id, one := range promises {
		if s, _ := p.fleet.Get(id); s.Sequence > one.after {
			delete(promises, id)
		} else if id != but {
			open = append(open, one)
		}
	}
	return open
}

// settled says that a deployment's placement is folded or was not taken.
func (p *placing) settled(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.asked, id)
}

// unanswered says that nobody knows whether a deployment's placement was taken.
func (p *placing) unanswered(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one, ok := p.asked[id]; ok {
		p.doubts[id] = one
		delete(p.asked, id)
	}
}
