package identity

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/credential"
)

// platformKeys is the aggregate that identity's own keys are of.
var platformKeys = subjects.Of(subjects.Platform, "identity", "keys")

// secrets are identity's own keys, opened when first needed.
type secrets struct {
	sealer *seal.Sealer
	mu     sync.Mutex
	prf    *seal.PRF
	signer jose.Signer
}

func (k *secrets) open(ctx context.Context) (*seal.PRF, jose.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.prf != nil {
		return k.prf, k.signer, nil
	}
	prf, err := k.sealer.PRF(ctx, platformKeys)
	if err != nil {
		return nil, nil, fmt.Errorf("open identity's keys: %w", err)
	}
	seed, err := prf.Sum("session-signature", "")
	if err != nil {
		return nil, nil, err
	}
	key := jose.SigningKey{Algorithm: jose.EdDSA, Key: ed25519.NewKeyFromSeed(seed[:])}
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, nil, fmt.Errorf("make the signer of sessions: %w", err)
	}
	k.prf, k.signer = prf, signer
	return prf, signer, nil
}

// emailHash finds an account by its normalized address, for who has the key alone.
func (k *secrets) emailHash(ctx context.Context, email string) (credential.Hash, error) {
	prf, _, err := k.open(ctx)
	if err != nil {
		return credential.Hash{}, err
	}
	return prf.Sum("email", email)
}

// claims are what a session's token says.
type claims struct {
	jwt.Claims
	// Use keeps it apart from other tokens of the same issuer.
	Use string `json:"use"`
}

// token writes a session's token: a JWT (RFC 7519) in form, signed with EdDSA, for
// clients that look inside. It is good because the log knows its hash, and for nothing
// that it says.
func (k *secrets) token(ctx context.Context, issuer, operator, session string, now, expires time.Time) (string, error) {
	_, signer, err := k.open(ctx)
	if err != nil {
		return "", err
	}
	text, err := jwt.Signed(signer).Claims(claims{Use: "session", Claims: jwt.Claims{
		Issuer: issuer, Subject: operator, ID: session, IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires),
	}}).Serialize()
	if err != nil {
		return "", fmt.Errorf("write a session's token: %w", err)
	}
	return text, nil
}
