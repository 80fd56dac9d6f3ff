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
	"github.com/slipway-paas/slipway/libs/problem"
)

const (
	// remember is how long an answer holds, and so how long a revoked token may
	// still work.
	remember = 5 * time.Second
	// maxRemembered bounds the cache: about 200 bytes each.
	maxRemembered = 4096
	askTimeout    = 3 * time.Second
)

// Tokens authenticates access tokens by asking identity for their SHA-256: the
// token itself stays here. Good answers are remembered for five seconds, refusals
// never.
type Tokens struct {
	identity identityv1.IdentityServiceClient
	now      func() time.Time
	asking   singleflight.Group

	mu    sync.RWMutex
	known map[[sha256.Size]byte]remembered
}

type remembered struct {
	principal *identityv1.Principal
	until     time.Time
}

var _ Authenticator = (*Tokens)(nil)

// NewTokens makes an authenticator; now is its clock.
func NewTokens(identity identityv1.IdentityServiceClient, now func() time.Time) *Tokens {
	return &Tokens{identity: identity, now: now, known: map[[sha256.Size]byte]remembered{}}
}

// Authenticate implements Authenticator. Callers must not change the Principal.
func (t *Tokens) Authenticate(ctx context.Context, token string) (*identityv1.Principal, error) {
	hash := sha256.Sum256([]byte(token))
	t.mu.RLock()
	hit, ok := t.known[hash]
	t.mu.RUnlock()
	if ok && t.now().Before(hit.until) {
		return hit.principal, nil
	}
	// One question for all who hold the same token, which ends with none of them.
	answer, err, _ := t.asking.Do(string(hash[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		return t.identity.Authenticate(ctx, &identityv1.AuthenticateRequest{TokenSha256: hash[:]})
	})
	if err != nil {
		return nil, refusal(err)
	}
	principal := answer.(*identityv1.AuthenticateResponse).GetPrincipal()
	if principal.GetOperatorId() == "" {
		return nil, problem.Unauthorized("The access token is not valid.")
	}
	t.put(hash, principal)
	return principal, nil
}

func refusal(err error) error {
	p := problem.From(err)
	if p.Status == http.StatusUnauthorized {
		return p
	}
	missing := problem.Unavailable("Slipway cannot check access tokens at the moment; try again in a second.", time.Second)
	return errors.Join(missing, err)
}

// Remembered is how many answers are held now.
func (t *Tokens) Remembered() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.known)
}

func (t *Tokens) put(hash [sha256.Size]byte, p *identityv1.Principal) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= maxRemembered {
		for h, r := range t.known {
			if !now.Before(r.until) {
				delete(t.known, h)
			}
		}
	}
	if len(t.known) >= maxRemembered {
		clear(t.known)
	}
	t.known[hash] = remembered{principal: p, until: now.Add(remember)}
}
