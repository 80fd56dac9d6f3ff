package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"sync"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/operator"
)

// directory is all operators, folded in memory from the log. Its size is that of
// the number of operators: about 300 bytes each.
type directory struct {
	mu        sync.RWMutex
	operators map[subjects.Aggregate]operator.State
	// byHash finds candidates by a part of their token's hash, so that what a lookup
	// takes tells nothing of the rest; the rest is compared in constant time.
	byHash map[[8]byte][]subjects.Aggregate
}

func newDirectory() *directory {
	return &directory{operators: map[subjects.Aggregate]operator.State{}, byHash: map[[8]byte][]subjects.Aggregate{}}
}

func (d *directory) apply(events []eventstore.Recorded) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range events {
		before := d.operators[e.Aggregate]
		after := operator.Evolve(before, e.Payload)
		if before.Exists() {
			d.unindex(before.TokenSHA256, e.Aggregate)
		}
		if after.Exists() {
			d.operators[e.Aggregate] = after
			key := [8]byte(after.TokenSHA256[:8])
			d.byHash[key] = append(d.byHash[key], e.Aggregate)
		}
	}
}

func (d *directory) unindex(hash [sha256.Size]byte, a subjects.Aggregate) {
	key := [8]byte(hash[:8])
	var kept []subjects.Aggregate
	for _, other := range d.byHash[key] {
		if other != a {
			kept = append(kept, other)
		}
	}
	if kept == nil {
		delete(d.byHash, key)
		return
	}
	d.byHash[key] = kept
}

// find returns the operator whose access token has that hash.
func (d *directory) find(hash []byte) (operator.State, bool) {
	if len(hash) != sha256.Size {
		return operator.State{}, false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, a := range d.byHash[[8]byte(hash[:8])] {
		state := d.operators[a]
		if subtle.ConstantTimeCompare(state.TokenSHA256[:], hash) == 1 {
			return state, true
		}
	}
	return operator.State{}, false
}
