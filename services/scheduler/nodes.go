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

// watchNodes follows the heartbeats until ctx ends.
func (s *Service) watchNodes(ctx context.Context) error {
	heartbeats, err := view.Open(ctx, s.deps.JetStream, bucketNodes, func() *nodev1.Node { return &nodev1.Node{} }, s.watched()...)
	if err != nil {
		return err
	}
	return heartbeats.Watch(ctx, ">", func(_ context.Context, c view.Change[*nodev1.Node]) error {
		if s.nodes.apply(c) {
			s.reactor.NodesChanged()
		}
		return nil
	}, nil)
}
