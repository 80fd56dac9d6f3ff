package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/node"
	"github.com/slipway-paas/slipway/services/scheduler/placement"
	"github.com/slipway-paas/slipway/services/scheduler/roster"
)

// ListNodes returns every node that ever joined, with what is promised on it.
func (s *Service) ListNodes(context.Context, *adminv1.ListNodesRequest) (*adminv1.ListNodesResponse, error) {
	used := s.fleet.Used()
	out := &adminv1.ListNodesResponse{}
	for _, r := range s.roster.List() {
		out.Nodes = append(out.Nodes, nodeAnswer(r, used[r.State.ID]))
	}
	return out, nil
}

// DrainNode keeps the node from taking instances and has those it has move away,
// each once another serves in its place. It answers when that is decided; ListNodes
// says how far it has come. Errors: not_found.
func (s *Service) DrainNode(ctx context.Context, in *adminv1.DrainNodeRequest) (*adminv1.DrainNodeResponse, error) {
	n, err := s.commandNode(ctx, in.GetNodeId(), node.Drain{})
	if err != nil {
		return nil, err
	}
	return &adminv1.DrainNodeResponse{Node: n}, nil
}

// UncordonNode lets the node take instances again. What has moved away stays where
// it is. Errors: not_found.
func (s *Service) UncordonNode(ctx context.Context, in *adminv1.UncordonNodeRequest) (*adminv1.UncordonNodeResponse, error) {
	n, err := s.commandNode(ctx, in.GetNodeId(), node.Uncordon{})
	if err != nil {
		return nil, err
	}
	return &adminv1.UncordonNodeResponse{Node: n}, nil
}

func (s *Service) commandNode(ctx context.Context, id string, c node.Command) (*adminv1.Node, error) {
	if !subjects.ValidToken(id) {
		return nil, problem.NotFound("Node not found: an id has letters, digits, hyphens and underscores only.")
	}
	var refused *problem.Error
	result, err := s.nodeHandler.Handle(ctx, decider.Command[node.Command]{
		Aggregate: subjects.Of(subjects.Platform, subjects.Node, id), Command: c, TraceParent: observe.TraceParent(ctx)})
	switch {
	case errors.Is(err, eventstore.ErrConflict):
		return nil, problem.Conflict("Others are changing this node at the same time; try again.")
	case errors.Is(err, eventstore.ErrUnavailable):
		return nil, problem.Unavailable("The event log is not answering; whether the command was taken is not known. List the nodes, then try again.", time.Second)
	case errors.As(err, &refused):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%T on node %s: %w", c, id, err)
	}
	report, _ := s.roster.Get(id)
	report.State = result.State
	return nodeAnswer(report, s.fleet.Used()[id]), nil
}

func nodeAnswer(r roster.Report, used placement.Use) *adminv1.Node {
	n := &adminv1.Node{
		NodeId: r.State.ID, Status: string(r.State.Status()), MemoryMb: r.State.MemoryMB, CpuMillicores: r.State.CPUMillicores,
		UsedMemoryMb: uint32(used.MemoryMB), UsedCpuMillicores: uint32(used.CPUMillicores), Instances: uint32(used.Instances),
	}
	if r.Beat != nil {
		n.MemoryMb, n.CpuMillicores, n.SeenAt = r.Beat.MemoryMb, r.Beat.CpuMillicores, r.Beat.SeenAt
	}
	return n
}
