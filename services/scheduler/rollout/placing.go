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

// needs is what an instance of the release needs, away from the others that stay.
func needs(s deployment.State, release string) placement.Request {
	return placement.Request{MemoryMB: s.Tier.GetMemoryLimitMb(), CPUMillicores: s.Tier.GetCpuLimitMillicores(),
		Beside: s.PerNode(release)}
}

// first is the command for the instances that wait for a first place, on the nodes
// alive now: all of the release that rolls out, or of the live one as many as there is
// room for. It does not fit when some have to wait.
func (p *placing) first(s deployment.State, count int) (_ deployment.Command, fits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	release, why := s.Next, ""
	if release == nil {
		release, why = s.Live, s.Scaling()+" "
	}
	request := needs(s, release.Id)
	nodes, reason := placement.Plan(p.nodes.Live(), p.used(s.ID), request, count)
	if len(nodes) == 0 || s.Next != nil && reason != "" {
		return deployment.Defer{ReleaseID: release.Id, Reason: why + reason}, false
	}
	c := deployment.Schedule{ReleaseID: release.Id}
	for n, node := range nodes {
		id := uuid.Must(uuid.NewV7()).String()
		placed := &deploymentv1.Placement{InstanceId: id, NodeId: node, ContainerName: further(s, id)}
		if release == s.Next && n == 0 {
			placed.ContainerName = release.ContainerName
		}
		c.Placements = append(c.Placements, placed)
	}
	p.asked[s.ID] = promise{after: s.Sequence, nodes: nodes, needs: request}
	return c, reason == ""
}

// further names the container of an instance that is not its release's first.
func further(s deployment.State, id string) string { return s.Subdomain + "-" + id[len(id)-6:] }

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
	request := needs(s, m.ReleaseID)
	nodes, reason := placement.Plan(live, p.used(s.ID), request, len(m.Replace))
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
			InstanceId: id, NodeId: node, ContainerName: further(s, id)})
	}
	p.asked[s.ID] = promise{after: s.Sequence, nodes: nodes, needs: request}
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
