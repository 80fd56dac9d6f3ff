package rollout

import (
	"slices"

	"github.com/google/uuid"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/placement"
)

func needs(s deployment.State) placement.Request {
	return placement.Request{MemoryMB: s.Tier.GetMemoryLimitMb(), CPUMillicores: s.Tier.GetCpuLimitMillicores()}
}

// place plans for the release that waits, on the nodes alive now.
func (r *Reactor) place(s deployment.State) deployment.Command {
	nodes, reason := placement.Plan(r.Nodes.Live(), r.Fleet.Used(), needs(s), 1)
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
	used := r.Fleet.Used()
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
