package scheduler

import (
	"context"
	"sync"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/scheduler/placement"
)

// nodes are those whose heartbeat has not expired.
type nodes struct {
	mu    sync.Mutex
	alive map[string]placement.Node
}

func newNodes() *nodes { return &nodes{alive: map[string]placement.Node{}} }

func (n *nodes) Live() []placement.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]placement.Node, 0, len(n.alive))
	for _, node := range n.alive {
		out = append(out, node)
	}
	return out
}

// apply takes in a heartbeat and reports whether room may have come.
func (n *nodes) apply(c view.Change[*nodev1.Node]) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.Deleted {
		delete(n.alive, c.Key)
		return false
	}
	node := placement.Node{ID: c.Key, MemoryMB: c.Value.MemoryMb, CPUMillicores: c.Value.CpuMillicores}
	changed := n.alive[c.Key] != node
	n.alive[c.Key] = node
	return changed
}

// Heartbeats are what nodes say of themselves; *view.View is one.
type Heartbeats interface {
	Watch(ctx context.Context, filter string, handle func(context.Context, view.Change[*nodev1.Node]) error, ready func()) error
}

// watchNodes follows the heartbeats until ctx ends.
func (s *Service) watchNodes(ctx context.Context, heartbeats Heartbeats) error {
	return heartbeats.Watch(ctx, ">", func(_ context.Context, c view.Change[*nodev1.Node]) error {
		if s.nodes.apply(c) {
			s.reactor.NodesChanged()
		}
		return nil
	}, nil)
}
