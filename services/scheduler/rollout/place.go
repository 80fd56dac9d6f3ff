package rollout

import (
	"slices"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/placement"
)

func needs(s deployment.State) placement.Request {
	return placement.Request{MemoryMB: s.Tier.GetMemoryLimitMb(), CPUMillicores: s.Tier.GetCpuLimitMillicores()}
}

// doubt is a decision whose append was not answered: it may be in the log.
type doubt struct {
	// after is the sequence of the deployment that it was made from.
	after      uint64
	placements []*deploymentv1.Placement
	needs      placement.Request
}

// doubted are the placements of a decision.
func doubted(s deployment.State, decision proto.Message) doubt {
	placed, ok := decision.(interface {
		GetPlacements() []*deploymentv1.Placement
	})
	if !ok {
		return doubt{}
	}
	return doubt{after: s.Sequence, placements: placed.GetPlacements(), needs: needs(s)}
}

// used is what is promised on each node, and what may be: an append that was not
// answered counts until the log shows what became of it. The deployment's own does
// not: deciding anew takes its place.
func (r *Reactor) used(id string) map[string]placement.Use {
	used := r.Fleet.Used()
	for other, d := range r.doubts {
		if s, _ := r.Fleet.Get(other); s.Sequence > d.after {
			delete(r.doubts, other)
			continue
		}
		if other == id {
			continue
		}
		for _, p := range d.placements {
			u := used[p.GetNodeId()]
			u.MemoryMB += uint64(d.needs.MemoryMB)
			u.CPUMillicores += uint64(d.needs.CPUMillicores)
			used[p.GetNodeId()] = u
		}
	}
	return used
}

// place plans for the release that waits, on the nodes alive now.
func (r *Reactor) place(s deployment.State) deployment.Command {
	nodes, reason := placement.Plan(r.Nodes.Live(), r.used(s.ID), needs(s), 1)
	if reason != "" {
		r.homeless[s.ID] = true
		return deployment.Defer{ReleaseID: s.Next.Id, Reason: reason}
	}
	return deployment.Schedule{ReleaseID: s.Next.Id, Placements: []*deploymentv1.Placement{{
		InstanceId: uuid.Must(uuid.NewV7()).String(), NodeId: nodes[0], ContainerName: s.Next.ContainerName,
	}}}
}

// move plans for instances that need another node: for as many as there is room
// for. While there is none the deployment is asked again when room comes, and
// otherwise is what else is due.
func (r *Reactor) move(s deployment.State, m *deployment.Move, otherwise deployment.Command) deployment.Command {
	live := r.Nodes.Live()
	for n := range live {
		live[n].Unschedulable = live[n].Unschedulable || slices.Contains(m.Avoid, live[n].ID)
	}
	used := r.used(s.ID)
	var nodes []string
	var reason string
	for count := len(m.Replace); count > 0 && len(nodes) == 0; count-- {
		nodes, reason = placement.Plan(live, used, needs(s), count)
	}
	if len(nodes) < len(m.Replace) {
		r.homeless[s.ID] = true
	}
	if len(nodes) == 0 && len(m.Gone) == 0 {
		if otherwise == nil && !m.Patient {
			return deployment.Defer{ReleaseID: m.ReleaseID, Reason: m.Reason + " " + reason}
		}
		return otherwise
	}
	c := deployment.Reschedule{ReleaseID: m.ReleaseID, NodeLost: m.NodeLost, NotHealthy: m.Patient, Reason: m.Reason,
		Replaced: append(slices.Clone(m.Replace[:len(nodes)]), m.Gone...)}
	for _, node := range nodes {
		id := uuid.Must(uuid.NewV7()).String()
		c.Placements = append(c.Placements, &deploymentv1.Placement{
			InstanceId: id, NodeId: node, ContainerName: s.Subdomain + "-" + id[len(id)-6:]})
	}
	return c
}

// count tells the figures of a decision that was taken.
func (r *Reactor) count(c deployment.Command) {
	moved, ok := c.(deployment.Reschedule)
	if !ok || r.Moved == nil || len(moved.Placements) == 0 {
		return
	}
	cause := "drain"
	switch {
	case moved.NodeLost:
		cause = "node_lost"
	case moved.NotHealthy:
		cause = "not_healthy"
	}
	r.Moved(cause, len(moved.Placements))
}
