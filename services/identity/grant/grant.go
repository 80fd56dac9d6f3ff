// Package grant is the aggregate of one consent: what a person has allowed an app to do,
// the code that redeems it, and the family of tokens that came of it. A code or a
// refresh token that comes a second time has been stolen, from whom cannot be known: it
// ends the whole grant (RFC 9700, sections 2.1.1 and 4.14.2). It is pure.
package grant

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/identity/credential"
	"github.com/slipway-paas/slipway/services/identity/scope"
)

// Lifetimes.
const (
	CodeFor   = time.Minute
	AccessFor = time.Hour
	// RefreshFor is how long a refresh token can lie unused, GrantFor how long its
	// family can live at all.
	RefreshFor = 30 * 24 * time.Hour
	GrantFor   = 90 * 24 * time.Hour
)

// Bounds of what one grant is remembered by.
const (
	// maxAccess is how many access tokens one grant has at once; a new one ends the
	// oldest.
	maxAccess = 5
	// maxFormer is how many used refresh tokens are known again as such.
	maxFormer = 1000
)

// Reasons of GrantRevoked.
const (
	ReasonRevoked       = "revoked"
	ReasonCodeReused    = "code_reused"
	ReasonRefreshReused = "refresh_token_reused"
)

// Hash is the SHA-256 of a code or token.
type Hash = [sha256.Size]byte

// Access is one access token.
type Access struct {
	SHA256    Hash
	Scopes    []string
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// Refresh is the one refresh token that holds.
type Refresh struct {
	SHA256    Hash
	ExpiresAt time.Time
}

// Code is the authorization code; it can be redeemed once.
type Code struct {
	SHA256      Hash
	Challenge   Hash
	RedirectURI string
	ExpiresAt   time.Time
	Redeemed    bool
}

// State is a grant as its events say; the zero State is none yet.
type State struct {
	ID, OrgID, OperatorID string
	ClientID, ClientName  string
	Scopes                []string
	// Code is nil for a grant of the device flow.
	Code    *Code
	Access  []Access
	Refresh Refresh
	// Former are used refresh tokens, the oldest first.
	Former     []Hash
	OpenedAt   time.Time
	LastUsedAt time.Time
	Revoked    bool
	// PasswordEpoch is the operator's at consent.
	PasswordEpoch uint32
}

// Exists reports whether the grant has been opened.
func (s State) Exists() bool { return s.ID != "" }

// Live reports whether anything can still come of the grant.
func (s State) Live(now time.Time) bool {
	return s.Exists() && !s.Revoked && now.Before(s.End())
}

// End is when the last of its code and tokens ends; no earlier, unless it is revoked.
func (s State) End() time.Time {
	end := s.Refresh.ExpiresAt
	if s.Code != nil && s.Code.ExpiresAt.After(end) {
		end = s.Code.ExpiresAt
	}
	for _, a := range s.Access {
		if a.ExpiresAt.After(end) {
			end = a.ExpiresAt
		}
	}
	return end
}

// Credentials are the access tokens; see credential.Issuer.
func (s State) Credentials() []credential.Credential {
	all := make([]credential.Credential, len(s.Access))
	for i, a := range s.Access {
		all[i] = credential.Credential{
			Hash: a.SHA256, Kind: credential.AccessToken, Operator: s.OperatorID, Org: s.OrgID, App: s.ClientID,
			Scopes: a.Scopes, Expires: a.ExpiresAt, Bond: credential.ToPassword, Epoch: s.PasswordEpoch,
		}
	}
	return all
}

// AccessToken finds a valid access token by its hash.
func (s State) AccessToken(hash Hash, now time.Time) (Access, bool) {
	for _, a := range s.Access {
		if same(a.SHA256, hash) && !s.Revoked && now.Before(a.ExpiresAt) {
			return a, true
		}
	}
	return Access{}, false
}

// HoldsRefresh reports whether the hash is that of the refresh token that holds.
func (s State) HoldsRefresh(hash Hash, now time.Time) bool {
	return same(s.Refresh.SHA256, hash) && !s.Revoked && now.Before(s.Refresh.ExpiresAt)
}

// Decider is the aggregate.
func Decider() decider.Decider[State, Command] {
	return decider.Decider[State, Command]{Initial: func() State { return State{} }, Decide: Decide, Evolve: Evolve}
}

// Evolve folds one event in. Events of other kinds change nothing.
func Evolve(s State, event eventstore.Recorded) State {
	switch e := event.Payload.(type) {
	case *identityv1.GrantOpened:
		code, okCode := hashOf(e.GetCodeSha256())
		challenge, okChallenge := hashOf(e.GetCodeChallenge())
		if s.Exists() || !okCode || !okChallenge {
			return s
		}
		return State{
			ID: e.GetGrantId(), OrgID: e.GetOrgId(), OperatorID: e.GetOperatorId(),
			ClientID: e.GetClientId(), ClientName: e.GetClientName(), Scopes: e.GetScopes(),
			Code:     &Code{SHA256: code, Challenge: challenge, RedirectURI: e.GetRedirectUri(), ExpiresAt: e.GetCodeExpiresAt().AsTime()},
			OpenedAt: event.Time, LastUsedAt: event.Time, PasswordEpoch: e.GetPasswordEpoch(),
		}
	case *identityv1.DeviceCodeRedeemed:
		if s.Exists() {
			return s
		}
		opened := State{
			ID: e.GetGrantId(), OrgID: e.GetOrgId(), OperatorID: e.GetOperatorId(),
			ClientID: e.GetClientId(), ClientName: e.GetClientName(), Scopes: e.GetScopes(),
			OpenedAt: event.Time, PasswordEpoch: e.GetPasswordEpoch(),
		}
		return opened.issued(e.GetTokens(), event.Time)
	case *identityv1.CodeRedeemed:
		if s.Code == nil {
			return s
		}
		code := *s.Code
		code.Redeemed = true
		s.Code = &code
		return s.issued(e.GetTokens(), event.Time)
	case *identityv1.TokensRefreshed:
		return s.issued(e.GetTokens(), event.Time)
	case *identityv1.AccessTokenRevoked:
		if hash, ok := hashOf(e.GetAccessSha256()); ok {
			s.Access = slices.DeleteFunc(slices.Clone(s.Access), func(a Access) bool { return a.SHA256 == hash })
		}
	case *identityv1.GrantRevoked:
		if s.Exists() {
			s.Revoked = true
			s.Access, s.Former, s.Refresh = nil, nil, Refresh{}
		}
	}
	return s
}

// issued is the state with new tokens; the refresh token before them is a used one.
func (s State) issued(t *identityv1.IssuedTokens, at time.Time) State {
	access, okAccess := hashOf(t.GetAccessSha256())
	refresh, okRefresh := hashOf(t.GetRefreshSha256())
	if !s.Exists() || s.Revoked || !okAccess || !okRefresh {
		return s
	}
	s.Access = slices.DeleteFunc(slices.Clone(s.Access), func(a Access) bool { return !at.Before(a.ExpiresAt) })
	s.Access = append(s.Access, Access{SHA256: access, Scopes: t.GetScopes(), IssuedAt: at, ExpiresAt: t.GetAccessExpiresAt().AsTime()})
	s.Access = s.Access[max(0, len(s.Access)-maxAccess):]
	if s.Refresh.SHA256 != (Hash{}) {
		s.Former = append(slices.Clone(s.Former), s.Refresh.SHA256)
		s.Former = s.Former[max(0, len(s.Former)-maxFormer):]
	}
	s.Refresh = Refresh{SHA256: refresh, ExpiresAt: t.GetRefreshExpiresAt().AsTime()}
	s.LastUsedAt = at
	return s
}

// issue makes tokens of a grant that was opened at the given time. An access token ends
// with its grant.
func issue(h TokenHashes, scopes []string, opened, now time.Time) *identityv1.IssuedTokens {
	end := opened.Add(GrantFor)
	return &identityv1.IssuedTokens{
		AccessSha256: h.Access[:], AccessExpiresAt: timestamppb.New(earlier(now.Add(AccessFor), end)),
		Scopes:        scope.Sorted(scopes),
		RefreshSha256: h.Refresh[:], RefreshExpiresAt: timestamppb.New(earlier(now.Add(RefreshFor), end)),
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func same(a, b Hash) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

func hashOf(b []byte) (Hash, bool) {
	if len(b) != sha256.Size {
		return Hash{}, false
	}
	return Hash(b), true
}
