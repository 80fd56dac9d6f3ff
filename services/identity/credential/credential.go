// Package credential is the one way to look up a credential: whatever its kind, it is
// known by the SHA-256 of what the caller presents, and good as long as the log says
// so. A Book holds those that the log has given out and not taken back.
package credential

import (
	"crypto/sha256"
	"crypto/subtle"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Hash is the SHA-256 of what the caller presents.
type Hash = [sha256.Size]byte

// Kind is what the caller presents.
type Kind = identityv1.CredentialKind

// Kinds.
const (
	AccessToken = identityv1.CredentialKind_CREDENTIAL_KIND_ACCESS_TOKEN
	Session     = identityv1.CredentialKind_CREDENTIAL_KIND_SESSION
	APIKey      = identityv1.CredentialKind_CREDENTIAL_KIND_API_KEY
)

// Bond says what happens to a credential when its operator ends older ones.
type Bond int

// Bonds.
const (
	// Free outlives both: it ends when it is revoked.
	Free Bond = iota
	// ToPassword ends when the password changes.
	ToPassword
	// ToLogin ends when the operator logs out, and when the password changes.
	ToLogin
)

// Credential lets its holder act for an operator.
type Credential struct {
	Hash     Hash
	Kind     Kind
	Operator string
	// Org is the organization it is for; empty when the caller chooses with each call.
	Org string
	// App is the OAuth app that acts, or the id of the session or key.
	App    string
	Scopes []string
	// Expires is when it ends by itself; zero for never.
	Expires time.Time
	Bond    Bond
	// Epoch is the operator's epoch of that Bond when the credential was given out.
	Epoch uint32
}

// Ended reports whether the credential has ended by itself.
func (c Credential) Ended(now time.Time) bool { return !c.Expires.IsZero() && !now.Before(c.Expires) }

// Issuer is the state of an aggregate that gives out credentials.
type Issuer interface {
	// Credentials are those that are good now, but for time, membership and epoch.
	Credentials() []Credential
}

// entry is a credential and the aggregate that gives it out.
type entry struct {
	Credential
	issuer subjects.Aggregate
}

// Book is the credentials of many issuers, about 300 bytes each. It may not be used
// concurrently.
type Book struct {
	// byHash finds candidates by a part of the hash, so that what a lookup takes tells
	// nothing of the rest; the rest is compared in constant time.
	byHash   map[[8]byte][]entry
	byIssuer map[subjects.Aggregate][]Hash
}

// NewBook makes an empty book.
func NewBook() *Book {
	return &Book{byHash: map[[8]byte][]entry{}, byIssuer: map[subjects.Aggregate][]Hash{}}
}

// Set replaces all credentials that the issuer has given out.
func (b *Book) Set(issuer subjects.Aggregate, credentials []Credential) {
	for _, hash := range b.byIssuer[issuer] {
		b.remove(issuer, hash)
	}
	delete(b.byIssuer, issuer)
	for _, c := range credentials {
		if c.Hash == (Hash{}) {
			continue
		}
		key := [8]byte(c.Hash[:8])
		b.byHash[key] = append(b.byHash[key], entry{c, issuer})
		b.byIssuer[issuer] = append(b.byIssuer[issuer], c.Hash)
	}
}

func (b *Book) remove(issuer subjects.Aggregate, hash Hash) {
	key := [8]byte(hash[:8])
	var kept []entry
	for _, e := range b.byHash[key] {
		if e.issuer != issuer || e.Hash != hash {
			kept = append(kept, e)
		}
	}
	if kept == nil {
		delete(b.byHash, key)
		return
	}
	b.byHash[key] = kept
}

// Find returns the credential with that hash and who gives it out.
func (b *Book) Find(hash []byte) (c Credential, issuer subjects.Aggregate, found bool) {
	if len(hash) != sha256.Size {
		return Credential{}, subjects.Aggregate{}, false
	}
	for _, e := range b.byHash[[8]byte(hash[:8])] {
		if subtle.ConstantTimeCompare(e.Hash[:], hash) == 1 {
			return e.Credential, e.issuer, true
		}
	}
	return Credential{}, subjects.Aggregate{}, false
}

// Sweep drops what has ended by itself and returns the issuers that have nothing left.
func (b *Book) Sweep(now time.Time) (done []subjects.Aggregate) {
	for issuer, hashes := range b.byIssuer {
		var kept []Hash
		for _, hash := range hashes {
			if c, _, found := b.Find(hash[:]); found && c.Ended(now) {
				b.remove(issuer, hash)
			} else if found {
				kept = append(kept, hash)
			}
		}
		if kept == nil {
			delete(b.byIssuer, issuer)
			done = append(done, issuer)
			continue
		}
		b.byIssuer[issuer] = kept
	}
	return done
}

// Len is how many credentials there are.
func (b *Book) Len() int {
	n := 0
	for _, hashes := range b.byIssuer {
		n += len(hashes)
	}
	return n
}
