// Package operator is the aggregate of one person's account: who they are and
// which access token speaks for them. It is pure: no clock, no random, no I/O.
package operator

import (
	"crypto/sha256"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
)

// ErrExists is returned when an operator that exists is to be bootstrapped.
var ErrExists = errors.New("the operator exists already")

// ErrUnknown is returned for a command on an operator that does not exist.
var ErrUnknown = errors.New("there is no such operator")

// ErrGranted is returned when the operator has every scope that is to be granted.
var ErrGranted = errors.New("the operator has these scopes")

// ErrMalformed is returned for a command that lacks something.
var ErrMalformed = errors.New("the command lacks an id, an organization, an app or a token's hash")

// State is an operator as its events say; the zero State is none yet.
type State struct {
	ID          string
	OrgID       string
	AppID       string
	TokenSHA256 [sha256.Size]byte
	Scopes      []string
}

// Exists reports whether the operator has been made.
func (s State) Exists() bool { return s.ID != "" }

// Command asks for a change.
type Command interface{ command() }

// Bootstrap makes an operator with its first access token.
type Bootstrap struct {
	ID, OrgID, AppID string
	TokenSHA256      [sha256.Size]byte
	Scopes           []string
}

// ReplaceToken gives the operator another access token; the old one ends.
type ReplaceToken struct {
	TokenSHA256 [sha256.Size]byte
}

// GrantScopes lets the operator's token do more; scopes that it has are no matter.
type GrantScopes struct {
	Scopes []string
}

func (Bootstrap) command()    {}
func (ReplaceToken) command() {}
func (GrantScopes) command()  {}

// Lacks are those of scopes that the operator's token does not have.
func (s State) Lacks(scopes ...string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool { return slices.Contains(s.Scopes, scope) })
}

// Decide says what happens when the command meets the state. Errors: ErrExists,
// ErrUnknown, ErrGranted, ErrMalformed.
func Decide(s State, c Command) (proto.Message, error) {
	switch c := c.(type) {
	case Bootstrap:
		if s.Exists() {
			return nil, ErrExists
		}
		return bootstrapped(State(c))
	case ReplaceToken:
		if !s.Exists() {
			return nil, ErrUnknown
		}
		if c.TokenSHA256 == [sha256.Size]byte{} {
			return nil, ErrMalformed
		}
		return &identityv1.AccessTokenReplaced{TokenSha256: c.TokenSHA256[:]}, nil
	case GrantScopes:
		if !s.Exists() {
			return nil, ErrUnknown
		}
		lacking := s.Lacks(c.Scopes...)
		if len(lacking) == 0 {
			return nil, ErrGranted
		}
		return &identityv1.ScopesGranted{Scopes: lacking}, nil
	default:
		return nil, ErrMalformed
	}
}

func bootstrapped(s State) (proto.Message, error) {
	if s.ID == "" || s.OrgID == "" || s.AppID == "" || s.TokenSHA256 == [sha256.Size]byte{} {
		return nil, ErrMalformed
	}
	return &identityv1.OperatorBootstrapped{
		OperatorId: s.ID, OrgId: s.OrgID, AppId: s.AppID,
		TokenSha256: s.TokenSHA256[:], Scopes: append([]string(nil), s.Scopes...),
	}, nil
}

// Evolve folds one event in. Events of other kinds change nothing.
func Evolve(s State, event proto.Message) State {
	switch e := event.(type) {
	case *identityv1.OperatorBootstrapped:
		if len(e.GetTokenSha256()) != sha256.Size || s.Exists() {
			return s
		}
		return State{
			ID: e.GetOperatorId(), OrgID: e.GetOrgId(), AppID: e.GetAppId(),
			TokenSHA256: [sha256.Size]byte(e.GetTokenSha256()), Scopes: append([]string(nil), e.GetScopes()...),
		}
	case *identityv1.AccessTokenReplaced:
		if len(e.GetTokenSha256()) == sha256.Size && s.Exists() {
			s.TokenSHA256 = [sha256.Size]byte(e.GetTokenSha256())
		}
	case *identityv1.ScopesGranted:
		if s.Exists() {
			s.Scopes = slices.Concat(s.Scopes, s.Lacks(e.GetScopes()...))
		}
	}
	return s
}
