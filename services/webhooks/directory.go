package webhooks

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/webhooks/webhook"
)

// directory is all webhooks, folded in memory from the log: about 1 kB each.
type directory struct {
	mu       sync.RWMutex
	webhooks map[subjects.Aggregate]webhook.State
	byOrg    map[string]map[subjects.Aggregate]bool
	position uint64
	moved    chan struct{} // closed and replaced when position grows
}

func newDirectory() *directory {
	return &directory{webhooks: map[subjects.Aggregate]webhook.State{}, byOrg: map[string]map[subjects.Aggregate]bool{}, moved: make(chan struct{})}
}

func (d *directory) apply(events []eventstore.Recorded) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range events {
		state := webhook.Evolve(d.webhooks[e.Aggregate], e)
		if state.Live() && state.ID == e.Aggregate.ID && state.Org == e.Aggregate.Org {
			d.webhooks[e.Aggregate] = state
			if d.byOrg[state.Org] == nil {
				d.byOrg[state.Org] = map[subjects.Aggregate]bool{}
			}
			d.byOrg[state.Org][e.Aggregate] = true
		} else {
			delete(d.webhooks, e.Aggregate)
			delete(d.byOrg[e.Aggregate.Org], e.Aggregate)
		}
		d.position = e.Sequence
	}
	close(d.moved)
	d.moved = make(chan struct{})
}

// wait returns once the directory has what was written up to that sequence.
func (d *directory) wait(ctx context.Context, sequence uint64) error {
	for {
		d.mu.RLock()
		position, moved := d.position, d.moved
		d.mu.RUnlock()
		if position >= sequence {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// of are an organization's webhooks, the oldest first.
func (d *directory) of(org string) []webhook.State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []webhook.State
	for a := range d.byOrg[org] {
		all = append(all, d.webhooks[a])
	}
	slices.SortFunc(all, func(a, b webhook.State) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func (d *directory) find(org, id string) (webhook.State, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	state, ok := d.webhooks[subjects.Of(org, subjects.Webhook, id)]
	return state, ok
}
