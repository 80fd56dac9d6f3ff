package authn

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// remember is how long an answer holds when no event ends it sooner.
	remember = time.Second
	// maxRemembered bounds the cache: about 300 bytes each.
	maxRemembered = 4096
	askTimeout    = 3 * time.Second
	retryAfter    = 250 * time.Millisecond
)

// Tokens authenticates credentials by asking identity for their SHA-256: the
// credential itself stays here. Good answers are remembered for a second at most, and
// dropped when an event may have changed them; refusals never are.
type Tokens struct {
	identity identityv1.IdentityServiceClient
	now      func() time.Time
	asking   singleflight.Group

	mu    sync.RWMutex
	known map[question]remembered
	// drops counts what ended answers: one that was asked for before does not count.
	drops uint64
}

// question is what identity is asked.
type question struct {
	hash [sha256.Size]byte
	org  string
}

type remembered struct {
	principal *identityv1.Principal
	until     time.Time
}

var _ Authenticator = (*Tokens)(nil)

// NewTokens makes an authenticator; now is its clock.
func NewTokens(identity identityv1.IdentityServiceClient, now func() time.Time) *Tokens {
	return &Tokens{identity: identity, now: now, known: map[question]remembered{}}
}

// Authenticate implements Authenticator. Callers must not change the Principal.
func (t *Tokens) Authenticate(ctx context.Context, token, org string) (*identityv1.Principal, error) {
	q := question{hash: sha256.Sum256([]byte(token)), org: org}
	t.mu.RLock()
	hit, ok := t.known[q]
	drops := t.drops
	t.mu.RUnlock()
	asked := t.now()
	if ok && asked.Before(hit.until) {
		return hit.principal, nil
	}
	// One question for all who hold the same credential, which ends with none of them.
	answer, err, _ := t.asking.Do(string(q.hash[:])+q.org, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		return t.identity.Authenticate(ctx, &identityv1.AuthenticateRequest{TokenSha256: q.hash[:], OrgId: q.org})
	})
	if err != nil {
		return nil, refusal(err)
	}
	principal := answer.(*identityv1.AuthenticateResponse).GetPrincipal()
	if principal.GetOperatorId() == "" {
		return nil, problem.Unauthorized("The credential is not valid.")
	}
	t.put(q, principal, asked, drops)
	return principal, nil
}

func refusal(err error) error {
	p := problem.From(err)
	if p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden {
		return p
	}
	missing := problem.Unavailable("Slipway cannot check access tokens and other credentials at the moment; try again in a second.", time.Second)
	return errors.Join(missing, err)
}

// Remembered is how many answers are held now.
func (t *Tokens) Remembered() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.known)
}

func (t *Tokens) put(q question, p *identityv1.Principal, asked time.Time, drops uint64) {
	until := asked.Add(remember)
	if p.GetExpiresAt() != nil && p.GetExpiresAt().AsTime().Before(until) {
		until = p.GetExpiresAt().AsTime()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drops != drops {
		// What came meanwhile may have ended this answer.
		return
	}
	if len(t.known) >= maxRemembered {
		for h, r := range t.known {
			if !asked.Before(r.until) {
				delete(t.known, h)
			}
		}
	}
	if len(t.known) >= maxRemembered {
		clear(t.known)
	}
	t.known[q] = remembered{principal: p, until: until}
}

// kinds are the aggregates whose events can end an answer. Sessions end by their
// operator's events.
func kinds() []string {
	return []string{subjects.Operator, subjects.Org, subjects.APIKey, subjects.OAuthApp, subjects.Grant}
}

// Follow drops answers at once when an event may have changed them, until ctx ends;
// then it returns nil.
func (t *Tokens) Follow(ctx context.Context, store eventstore.Store) error {
	last, err := store.LastSequence(ctx, subjects.AllEvents)
	for err != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryAfter):
		}
		last, err = store.LastSequence(ctx, subjects.AllEvents)
	}
	var filters []string
	for _, kind := range kinds() {
		filters = append(filters, subjects.KindFilter(kind))
	}
	return store.Follow(ctx, last, func(_ context.Context, events []eventstore.Recorded) error {
		t.Drop(events)
		return nil
	}, nil, filters...)
}

// Drop forgets the answers that the events may have changed.
func (t *Tokens) Drop(events []eventstore.Recorded) {
	changed := map[string]bool{}
	for _, e := range events {
		changed[e.Aggregate.ID] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drops++
	for q, r := range t.known {
		p := r.principal
		if changed[p.GetOperatorId()] || changed[p.GetOrgId()] || changed[p.GetAppId()] || changed[p.GetCredentialId()] {
			delete(t.known, q)
		}
	}
}
