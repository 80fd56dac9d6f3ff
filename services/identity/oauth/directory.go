package oauth

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/device"
	"github.com/slipway-paas/slipway/services/identity/grant"
	"github.com/slipway-paas/slipway/services/identity/oauthapp"
)

// slack is how much the clocks of those who write the log may differ.
const slack = 5 * time.Minute

// sweepEvery is after how many events what has ended is forgotten.
const sweepEvery = 4096

// directory is what lookups by something else than an id need, folded from the log: all
// apps, and the grants and devices that have not ended.
type directory struct {
	mu      sync.RWMutex
	apps    map[string]oauthapp.State
	grants  map[subjects.Aggregate]grant.State
	devices map[string]device.State
	// byAccess finds the grant of an access token, byOperator those of a person,
	// byUserCode the device that waits.
	byAccess   map[grant.Hash]subjects.Aggregate
	byOperator map[string]map[subjects.Aggregate]struct{}
	byUserCode map[device.Hash]string

	applied uint64
	// moved is closed when applied grows.
	moved chan struct{}
	seen  int
}

func newDirectory() *directory {
	return &directory{
		apps: map[string]oauthapp.State{}, grants: map[subjects.Aggregate]grant.State{}, devices: map[string]device.State{},
		byAccess: map[grant.Hash]subjects.Aggregate{}, byOperator: map[string]map[subjects.Aggregate]struct{}{},
		byUserCode: map[device.Hash]string{}, moved: make(chan struct{}),
	}
}

func (d *directory) apply(events []eventstore.Recorded) {
	if len(events) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range events {
		switch e.Aggregate.Kind {
		case subjects.OAuthApp:
			if app := oauthapp.Evolve(d.apps[e.Aggregate.ID], e); app.Exists() {
				d.apps[e.Aggregate.ID] = app
			}
		case subjects.Grant:
			d.putGrant(e.Aggregate, grant.Evolve(d.grants[e.Aggregate], e))
		case subjects.Device:
			d.putDevice(e.Aggregate.ID, device.Evolve(d.devices[e.Aggregate.ID], e))
		}
	}
	last := events[len(events)-1]
	if d.seen += len(events); d.seen >= sweepEvery {
		d.sweepLocked(last.Time.Add(-slack))
	}
	d.applied = last.Sequence
	close(d.moved)
	d.moved = make(chan struct{})
}

func (d *directory) putGrant(a subjects.Aggregate, after grant.State) {
	for _, access := range d.grants[a].Access {
		delete(d.byAccess, access.SHA256)
	}
	if !after.Exists() {
		return
	}
	if after.Revoked {
		d.dropGrant(a)
		return
	}
	// Whether a refresh token is a used one is decided from the log.
	after.Former = nil
	d.grants[a] = after
	for _, access := range after.Access {
		d.byAccess[access.SHA256] = a
	}
	if d.byOperator[after.OperatorID] == nil {
		d.byOperator[after.OperatorID] = map[subjects.Aggregate]struct{}{}
	}
	d.byOperator[after.OperatorID][a] = struct{}{}
}

func (d *directory) dropGrant(a subjects.Aggregate) {
	state := d.grants[a]
	for _, access := range state.Access {
		delete(d.byAccess, access.SHA256)
	}
	delete(d.grants, a)
	delete(d.byOperator[state.OperatorID], a)
	if len(d.byOperator[state.OperatorID]) == 0 {
		delete(d.byOperator, state.OperatorID)
	}
}

func (d *directory) putDevice(id string, after device.State) {
	if !after.Exists() {
		return
	}
	if after.OperatorID != "" {
		delete(d.byUserCode, after.UserCode)
		delete(d.devices, id)
		return
	}
	d.devices[id] = after
	d.byUserCode[after.UserCode] = id
}

// sweep forgets what ended before the given time.
func (d *directory) sweep(before time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweepLocked(before)
}

func (d *directory) sweepLocked(before time.Time) {
	d.seen = 0
	for a, g := range d.grants {
		if !g.Live(before) {
			d.dropGrant(a)
		}
	}
	for id, waiting := range d.devices {
		if !waiting.Waits(before) {
			delete(d.byUserCode, waiting.UserCode)
			delete(d.devices, id)
		}
	}
}

// wait returns once the event with that sequence is known, or ctx ends.
func (d *directory) wait(ctx context.Context, sequence uint64) error {
	for {
		d.mu.RLock()
		applied, moved := d.applied, d.moved
		d.mu.RUnlock()
		if applied >= sequence {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

func (d *directory) app(clientID string) (oauthapp.State, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	app, ok := d.apps[clientID]
	return app, ok
}

// access finds a valid access token. The hash of a token that somebody guesses tells
// nothing of others, so that looking it up in a map gives nothing away.
func (d *directory) access(hash grant.Hash, now time.Time) (subjects.Aggregate, grant.State, grant.Access, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	a, ok := d.byAccess[hash]
	if !ok {
		return subjects.Aggregate{}, grant.State{}, grant.Access{}, false
	}
	state := d.grants[a]
	token, ok := state.AccessToken(hash, now)
	return a, state, token, ok
}

// ofOperator are a person's grants that have tokens, the newest first.
func (d *directory) ofOperator(operatorID string, now time.Time) []grant.State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []grant.State
	for a := range d.byOperator[operatorID] {
		if g := d.grants[a]; g.Live(now) && (g.Code == nil || g.Code.Redeemed) {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b grant.State) int {
		if c := b.OpenedAt.Compare(a.OpenedAt); c != 0 {
			return c
		}
		return slices.Compare([]byte(a.ID), []byte(b.ID))
	})
	return all
}

// waiting finds the device that waits with that user code.
func (d *directory) waiting(userCode device.Hash, now time.Time) (device.State, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	state, ok := d.devices[d.byUserCode[userCode]]
	return state, ok && state.Waits(now)
}

// numWaiting is how many devices wait.
func (d *directory) numWaiting(now time.Time) int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := 0
	for waiting := range maps.Values(d.devices) {
		if waiting.Waits(now) {
			n++
		}
	}
	return n
}
