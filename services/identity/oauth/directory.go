package oauth

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/credential"
	"github.com/slipway-paas/slipway/services/identity/device"
	"github.com/slipway-paas/slipway/services/identity/grant"
	"github.com/slipway-paas/slipway/services/identity/oauthapp"
)

// slack is how much the clocks of those who write the log may differ.
const slack = 5 * time.Minute

// Directory is what lookups by something else than an id need, folded from the log: all
// apps, and the grants and devices that have not ended. It may be used concurrently.
type Directory struct {
	mu      sync.RWMutex
	apps    map[string]oauthapp.State
	grants  map[subjects.Aggregate]grant.State
	devices map[string]device.State
	// byAccess finds the grant of an access token, byOperator those of a person,
	// byUserCode the device that waits.
	byAccess   map[grant.Hash]subjects.Aggregate
	byOperator map[string]map[subjects.Aggregate]struct{}
	byUserCode map[device.Hash]string
}

// NewDirectory makes an empty one.
func NewDirectory() *Directory {
	return &Directory{
		apps: map[string]oauthapp.State{}, grants: map[subjects.Aggregate]grant.State{}, devices: map[string]device.State{},
		byAccess: map[grant.Hash]subjects.Aggregate{}, byOperator: map[string]map[subjects.Aggregate]struct{}{},
		byUserCode: map[device.Hash]string{},
	}
}

// Apply folds one event in, and returns the credentials that its aggregate gives out
// from then on.
func (d *Directory) Apply(e eventstore.Recorded) []credential.Credential {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e.Aggregate.Kind {
	case subjects.OAuthApp:
		if app := oauthapp.Evolve(d.apps[e.Aggregate.ID], e); app.ClientID != "" {
			d.apps[e.Aggregate.ID] = app
		}
	case subjects.Grant:
		after := grant.Evolve(d.grants[e.Aggregate], e)
		d.putGrant(e.Aggregate, after)
		return after.Credentials()
	case subjects.Device:
		d.putDevice(e.Aggregate.ID, device.Evolve(d.devices[e.Aggregate.ID], e))
	}
	return nil
}

func (d *Directory) putGrant(a subjects.Aggregate, after grant.State) {
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

func (d *Directory) dropGrant(a subjects.Aggregate) {
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

func (d *Directory) putDevice(id string, after device.State) {
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

// Sweep forgets what has ended. It is for when the whole log has been folded: of what is
// long past the end is known only then.
func (d *Directory) Sweep(now time.Time) {
	before := now.Add(-slack)
	d.mu.Lock()
	defer d.mu.Unlock()
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

func (d *Directory) app(clientID string) (oauthapp.State, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	app, ok := d.apps[clientID]
	return app, ok
}

// appsOf are the organization's clients, the oldest first.
func (d *Directory) appsOf(orgID string) []oauthapp.State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []oauthapp.State
	for _, app := range d.apps {
		if app.Exists() && app.OrgID == orgID {
			all = append(all, app)
		}
	}
	slices.SortFunc(all, func(a, b oauthapp.State) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ClientID, b.ClientID))
	})
	return all
}

// DropOrg ends the clients of an organization that is no more.
func (d *Directory) DropOrg(orgID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, app := range d.apps {
		if app.OrgID == orgID {
			d.apps[id] = oauthapp.State{ClientID: id, OrgID: orgID, Deleted: true}
		}
	}
}

// Deleted reports whether the client was deleted: whatever it was given has ended.
func (d *Directory) Deleted(clientID string) bool {
	app, _ := d.app(clientID)
	return app.Deleted
}

// access finds a valid access token. The hash of a token that somebody guesses tells
// nothing of others, so that looking it up in a map gives nothing away.
func (d *Directory) access(hash grant.Hash, now time.Time) (subjects.Aggregate, grant.State, grant.Access, bool) {
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
func (d *Directory) ofOperator(operatorID string, now time.Time) []grant.State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []grant.State
	for a := range d.byOperator[operatorID] {
		if g := d.grants[a]; g.Live(now) && !d.apps[g.ClientID].Deleted && (g.Code == nil || g.Code.Redeemed) {
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
func (d *Directory) waiting(userCode device.Hash, now time.Time) (device.State, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	state, ok := d.devices[d.byUserCode[userCode]]
	return state, ok && state.Waits(now)
}

// numWaiting is how many devices wait.
func (d *Directory) numWaiting(now time.Time) int {
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
