package subscriptions

import (
	"sync"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// credential lets who has the key's seed read one organization's events.
type credential struct {
	id, org, operator, key string
	// after is the sequence that reading the past begins after.
	after uint64
	// expires is zero for never.
	expires time.Time
}

func (c credential) expired(now time.Time) bool { return !c.expires.IsZero() && !now.Before(c.expires) }

// directory is all credentials that live, folded in memory from the log: about 400
// bytes each, and 100 for each member of an organization.
type directory struct {
	mu      sync.RWMutex
	live    map[string]credential // by id
	byKey   map[string]string     // ids by public key
	members map[string]map[string]bool
}

func newDirectory() *directory {
	return &directory{live: map[string]credential{}, byKey: map[string]string{}, members: map[string]map[string]bool{}}
}

// filters are the events that the directory is made of.
func filters() []string {
	return []string{subjects.KindFilter(subjects.EventCredential), subjects.KindFilter(subjects.Org)}
}

// apply folds events in and returns what began and what ended with them.
func (d *directory) apply(events []eventstore.Recorded) (begun, ended []credential) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range events {
		begun, ended = d.one(e, begun, ended)
	}
	return begun, ended
}

func (d *directory) one(rec eventstore.Recorded, begun, ended []credential) (b, e []credential) {
	org, id := rec.Aggregate.Org, rec.Aggregate.ID
	switch event := rec.Payload.(type) {
	case *identityv1.OrgCreated:
		d.join(org, event.GetOwnerId())
	case *identityv1.MemberJoined:
		d.join(org, event.GetOperatorId())
	case *identityv1.MemberRemoved:
		ended = append(ended, d.leave(org, event.GetOperatorId())...)
	case *identityv1.OrgDeleted:
		for operator := range d.members[org] {
			ended = append(ended, d.leave(org, operator)...)
		}
		delete(d.members, org)
	case *identityv1.EventCredentialCreated:
		c := credential{
			id: event.GetCredentialId(), org: event.GetOrgId(), operator: event.GetOperatorId(), key: event.GetPublicKey(), after: event.GetAfterSequence(),
		}
		if event.GetExpiresAt() != nil {
			c.expires = event.GetExpiresAt().AsTime()
		}
		// Whose it is, its subject says; the first who has a key keeps it.
		if _, taken := d.byKey[c.key]; taken || c.id != id || c.org != org || org == subjects.Platform || !d.members[org][c.operator] {
			return begun, ended
		}
		d.live[id], d.byKey[c.key] = c, id
		begun = append(begun, c)
	case *identityv1.EventCredentialRevoked:
		if c, ok := d.live[id]; ok && c.org == org {
			ended = append(ended, d.drop(c))
		}
	}
	return begun, ended
}

func (d *directory) join(org, operator string) {
	if d.members[org] == nil {
		d.members[org] = map[string]bool{}
	}
	d.members[org][operator] = true
}

// leave ends what the operator made in the organization.
func (d *directory) leave(org, operator string) (ended []credential) {
	delete(d.members[org], operator)
	for _, c := range d.live {
		if c.org == org && c.operator == operator {
			ended = append(ended, d.drop(c))
		}
	}
	return ended
}

func (d *directory) drop(c credential) credential {
	delete(d.live, c.id)
	delete(d.byKey, c.key)
	return c
}

// find is the credential with that public key, unless it has ended.
func (d *directory) find(key string, now time.Time) (credential, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	c, ok := d.live[d.byKey[key]]
	return c, ok && !c.expired(now)
}

// all are those that have not ended, by id.
func (d *directory) all(now time.Time) map[string]credential {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make(map[string]credential, len(d.live))
	for id, c := range d.live {
		if !c.expired(now) {
			all[id] = c
		}
	}
	return all
}
