package identity

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/apikey"
	"github.com/slipway-paas/slipway/services/identity/credential"
	"github.com/slipway-paas/slipway/services/identity/oauth"
	"github.com/slipway-paas/slipway/services/identity/operator"
	"github.com/slipway-paas/slipway/services/identity/org"
	"github.com/slipway-paas/slipway/services/identity/session"
)

// directory is all operators, organizations and credentials, folded in memory from the
// log: about 1 kB an operator and 300 bytes a credential.
type directory struct {
	mu        sync.RWMutex
	operators map[string]operator.State
	// where is each operator's aggregate: the first one's is not the platform's.
	where  map[string]subjects.Aggregate
	emails map[credential.Hash]string // operators' ids
	orgs   map[string]org.State
	// memberOf are the organizations of each operator.
	memberOf map[string]map[string]bool
	// invited are the organizations that each address is invited to.
	invited map[credential.Hash]map[string]bool
	issuers map[subjects.Aggregate]credential.Issuer
	keysOf  map[string]map[string]bool // ids of API keys by org
	book    *credential.Book
	// oauth is what OAuthService looks up.
	oauth *oauth.Directory

	position uint64
	moved    chan struct{} // closed and replaced when position grows
}

func newDirectory() *directory {
	return &directory{
		operators: map[string]operator.State{}, where: map[string]subjects.Aggregate{}, emails: map[credential.Hash]string{},
		orgs: map[string]org.State{}, memberOf: map[string]map[string]bool{}, invited: map[credential.Hash]map[string]bool{},
		issuers: map[subjects.Aggregate]credential.Issuer{}, keysOf: map[string]map[string]bool{},
		book: credential.NewBook(), oauth: oauth.NewDirectory(), moved: make(chan struct{}),
	}
}

// folds has a fold for each kind of aggregate that the directory is made of. A new kind
// of credential needs a line here and nothing else: a state that is a
// credential.Issuer, folded by issue.
func folds() map[string]func(*directory, eventstore.Recorded) {
	return map[string]func(*directory, eventstore.Recorded){
		subjects.Operator: (*directory).applyOperator,
		subjects.Org:      (*directory).applyOrg,
		subjects.APIKey:   (*directory).applyKey,
		subjects.Session:  issue(session.Evolve),
		subjects.OAuthApp: (*directory).applyOAuth,
		subjects.Grant:    (*directory).applyOAuth,
		subjects.Device:   (*directory).applyOAuth,
	}
}

// filters are the events that the directory is made of.
func filters() []string {
	var all []string
	for kind := range folds() {
		all = append(all, subjects.KindFilter(kind))
	}
	return all
}

func (d *directory) apply(events []eventstore.Recorded) {
	known := folds()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range events {
		if fold := known[e.Aggregate.Kind]; fold != nil {
			fold(d, e)
		}
		d.position = e.Sequence
	}
	close(d.moved)
	d.moved = make(chan struct{})
}

// issue folds aggregates of which only the credentials matter.
func issue[S credential.Issuer](evolve func(S, eventstore.Recorded) S) func(*directory, eventstore.Recorded) {
	return func(d *directory, e eventstore.Recorded) {
		before, _ := d.issuers[e.Aggregate].(S) // the zero S when there is none yet
		after := evolve(before, e)
		d.issuers[e.Aggregate] = after
		d.book.Set(e.Aggregate, after.Credentials())
	}
}

func (d *directory) applyOperator(e eventstore.Recorded) {
	after := operator.Evolve(d.operators[e.Aggregate.ID], e)
	// An operator's id says nothing of its org: take no events of another org's for it.
	home, known := d.where[e.Aggregate.ID]
	if after.ID == "" || known && home != e.Aggregate {
		return
	}
	if before := d.operators[after.ID]; after.Deleted && d.emails[before.EmailHash] == after.ID {
		delete(d.emails, before.EmailHash)
	}
	d.operators[after.ID], d.where[after.ID] = after, e.Aggregate
	if after.EmailHash != (credential.Hash{}) {
		d.emails[after.EmailHash] = after.ID
	}
	d.book.Set(e.Aggregate, after.Credentials())
}

func (d *directory) applyOrg(e eventstore.Recorded) {
	before := d.orgs[e.Aggregate.ID]
	after := org.Evolve(before, e)
	if after.ID == "" || e.Aggregate.Org != e.Aggregate.ID {
		return
	}
	d.orgs[after.ID] = after
	if after.Deleted {
		d.oauth.DropOrg(after.ID)
	}
	for id := range before.Members {
		drop(d.memberOf, id, after.ID)
	}
	for id := range after.Members {
		add(d.memberOf, id, after.ID)
	}
	for _, i := range before.Invitations {
		drop(d.invited, i.EmailHash, after.ID)
	}
	for _, i := range after.Invitations {
		add(d.invited, i.EmailHash, after.ID)
	}
}

func add[K comparable](sets map[K]map[string]bool, key K, member string) {
	if sets[key] == nil {
		sets[key] = map[string]bool{}
	}
	sets[key][member] = true
}

func drop[K comparable](sets map[K]map[string]bool, key K, member string) {
	if delete(sets[key], member); len(sets[key]) == 0 {
		delete(sets, key)
	}
}

func (d *directory) applyKey(e eventstore.Recorded) {
	issue(apikey.Evolve)(d, e)
	if key, _ := d.issuers[e.Aggregate].(apikey.State); key.Live() {
		add(d.keysOf, key.Org, key.ID)
		return
	}
	delete(d.issuers, e.Aggregate)
	drop(d.keysOf, e.Aggregate.Org, e.Aggregate.ID)
}

// applyOAuth leaves the state to the directory of OAuth: a grant outlives its access
// tokens, and is forgotten only when its refresh token has ended.
func (d *directory) applyOAuth(e eventstore.Recorded) {
	if credentials := d.oauth.Apply(e); e.Aggregate.Kind == subjects.Grant {
		d.book.Set(e.Aggregate, credentials)
	}
}

// sweep forgets what has ended by itself. Keys stay: people want to see that they have.
func (d *directory) sweep(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, done := range d.book.Sweep(now) {
		if done.Kind != subjects.APIKey && done.Kind != subjects.Operator {
			delete(d.issuers, done)
		}
	}
}

// operator returns the one with that id.
func (d *directory) operator(id string) (operator.State, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	state := d.operators[id]
	return state, state.Exists()
}

// home is the operator's aggregate.
func (d *directory) home(id string) subjects.Aggregate {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if home, ok := d.where[id]; ok {
		return home
	}
	return subjects.Of(subjects.Platform, subjects.Operator, id)
}

// byEmail returns the operator whose address has that keyed hash.
func (d *directory) byEmail(hash credential.Hash) (operator.State, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	id, ok := d.emails[hash]
	return d.operators[id], ok
}

func (d *directory) org(id string) (org.State, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	state := d.orgs[id]
	return state, state.Exists()
}

// orgsOf are the organizations that the operator is in, the oldest first.
func (d *directory) orgsOf(id string) []org.State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []org.State
	for of := range d.memberOf[id] {
		out = append(out, d.orgs[of])
	}
	return oldestFirst(out)
}

// invitedTo are the organizations that who has the address may join.
func (d *directory) invitedTo(email credential.Hash) []org.State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []org.State
	for of := range d.invited[email] {
		out = append(out, d.orgs[of])
	}
	return oldestFirst(out)
}

func oldestFirst(orgs []org.State) []org.State {
	slices.SortFunc(orgs, func(a, b org.State) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return orgs
}

// keysOfOrg are the API keys of the organization that nobody has revoked.
func (d *directory) keysOfOrg(id string) []apikey.State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []apikey.State
	for key := range d.keysOf[id] {
		if state, ok := d.issuers[subjects.Of(id, subjects.APIKey, key)].(apikey.State); ok {
			out = append(out, state)
		}
	}
	return out
}

// wait waits until the directory has folded the event with that sequence.
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

// found is what a credential comes to.
type found struct {
	credential.Credential
	issuer   subjects.Aggregate
	operator operator.State
	// org is the one to act for, role the operator's in it: empty for no member.
	org, role string
}

// find looks a credential up. It is not found when it has ended, by itself or with
// what it is bound to. asked is the organization to act for; empty for its own.
func (d *directory) find(hash []byte, asked string, now time.Time) (found, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	c, issuer, ok := d.book.Find(hash)
	if !ok || c.Ended(now) {
		return found{}, false
	}
	holder := d.operators[c.Operator]
	if !holder.Exists() || !holder.Holds(c) || c.Kind == credential.AccessToken && d.oauth.Deleted(c.App) {
		return found{}, false
	}
	f := found{Credential: c, issuer: issuer, operator: holder, org: c.Org}
	if f.org == "" {
		if f.org = asked; asked == "" {
			f.org = holder.OrgID
		}
	}
	f.role = d.orgs[f.org].Members[c.Operator].Role
	// What is for one organization ends with the membership.
	if c.Org != "" && !access.ValidRole(f.role) {
		return found{}, false
	}
	return f, true
}
