package rollout

import (
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

	mu     sync.Mutex
	unseen map[string]placed // by deployment
}

type placed struct {
	node, instance string
	request        placement.Request
}

// plan is the command for the release that waits, on the nodes alive now.
func (p *placing) plan(s deployment.State) deployment.Command {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.unseen, s.ID)
	// What is folded just now counts twice for once, which only defers.
	given := p.given()
	used := p.fleet.Used()
	for _, g := range given {
		u := used[g.node]
		u.MemoryMB += uint64(g.request.MemoryMB)
		u.CPUMillicores += uint64(g.request.CPUMillicores)
		used[g.node] = u
	}
	request := placement.Request{MemoryMB: s.Tier.GetMemoryLimitMb(), CPUMillicores: s.Tier.GetCpuLimitMillicores()}
	nodes, reason := placement.Plan(p.nodes.Live(), used, request, 1)
	if reason != "" {
		return deployment.Defer{ReleaseID: s.Next.Id, Reason: reason}
	}
	instance := uuid.Must(uuid.NewV7()).String()
	p.unseen[s.ID] = placed{node: nodes[0], instance: instance, request: request}
	return deployment.Schedule{ReleaseID: s.Next.Id, Placements: []*deploymentv1.Placement{{
		InstanceId: instance, NodeId: nodes[0], ContainerName: s.Next.ContainerName,
	}}}
}

// given are the placements that the fleet does not know of yet.
func (p *placing) given() []placed {
	given := make([]placed, 0, len(p.unseen))
	for id, one := range p.unseen {
		if s, _ := p.fleet.Get(id); s.Instances[one.instance] != nil {
			delete(p.unseen, id)
			continue
		}
		given = append(given, one)
	}
	return given
}

// settled says that a deployment's placement is folded or was not taken.
func (p *placing) settled(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.unseen, id)
}
