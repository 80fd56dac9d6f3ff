// Package apikey is the aggregate of one API key of an organization. It speaks for the
// operator that made it, in that organization, for as long as they are a member.
package apikey

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/identity/credential"
)

var (
	// ErrExists is returned when a key is to be made twice.
	ErrExists = errors.New("the key exists already")
	// ErrUnknown is returned for a key that does not exist, or no longer.
	ErrUnknown = errors.New("there is no such key")
	// ErrMalformed is returned for a command that lacks something.
	ErrMalformed = errors.New("the command lacks an id, an organization, an operator, a hash or a future end")
)

// State is a key; the zero State is none yet.
type State struct {
	ID, Org, Operator, Name, Prefix string
	KeySHA256                       credential.Hash
	Scopes                          []string
	// ExpiresAt is zero for never, LastUsed the day of the last use.
	ExpiresAt, CreatedAt, LastUsed time.Time
	Revoked                        bool
}

// Live reports whether there is such a key and nobody has revoked it.
func (s State) Live() bool { return s.ID != "" && !s.Revoked }

// Command asks for a change.
type Command interface{ command() }

type (
	// Create makes a key.
	Create struct {
		ID, Org, Operator, Name, Prefix string
		KeySHA256                       credential.Hash
		Scopes                          []string
		ExpiresAt                       time.Time
	}
	// Use notes the day of a use.
	Use struct{}
	// Revoke ends the key.
	Revoke struct{}
)

func (Create) command() {}
func (Use) command()    {}
func (Revoke) command() {}

// Decider runs commands on a key.
func Decider() decider.Decider[State, Command] {
	return decider.Decider[State, Command]{
		Initial: func() State { return State{} }, Decide: Decide, Evolve: Evolve,
	}
}

// Decide says what happens; nil for nothing. Errors: those of this package.
func Decide(s State, c Command, now time.Time) (proto.Message, error) {
	switch c := c.(type) {
	case Create:
		return create(s, c, now)
	case Use:
		if !s.Live() {
			return nil, ErrUnknown
		}
		day := now.UTC().Truncate(24 * time.Hour)
		if !s.LastUsed.Before(day) {
			return nil, nil
		}
		return &identityv1.ApiKeyUsed{Day: timestamppb.New(day)}, nil
	case Revoke:
		if !s.Live() {
			return nil, ErrUnknown
		}
		return &identityv1.ApiKeyRevoked{}, nil
	default:
		return nil, ErrMalformed
	}
}

func create(s State, c Create, now time.Time) (proto.Message, error) {
	switch {
	case s.ID != "":
		return nil, ErrExists
	case c.ID == "", c.Org == "", c.Operator == "", c.KeySHA256 == credential.Hash{}:
		return nil, ErrMalformed
	case !c.ExpiresAt.IsZero() && !c.ExpiresAt.After(now):
		return nil, ErrMalformed
	}
	e := &identityv1.ApiKeyCreated{
		KeyId: c.ID, OrgId: c.Org, OperatorId: c.Operator, Name: c.Name, Prefix: c.Prefix,
		KeySha256: c.KeySHA256[:], Scopes: slices.Clone(c.Scopes),
	}
	if !c.ExpiresAt.IsZero() {
		e.ExpiresAt = timestamppb.New(c.ExpiresAt)
	}
	return e, nil
}

// Evolve folds one event in.
func Evolve(s State, rec eventstore.Recorded) State {
	switch e := rec.Payload.(type) {
	case *identityv1.ApiKeyCreated:
		if s.ID != "" || len(e.GetKeySha256()) != len(credential.Hash{}) {
			return s
		}
		s = State{
			ID: e.GetKeyId(), Org: e.GetOrgId(), Operator: e.GetOperatorId(), Name: e.GetName(), Prefix: e.GetPrefix(),
			KeySHA256: credential.Hash(e.GetKeySha256()), Scopes: slices.Clone(e.GetScopes()), CreatedAt: rec.Time,
		}
		if e.GetExpiresAt() != nil {
			s.ExpiresAt = e.GetExpiresAt().AsTime()
		}
	case *identityv1.ApiKeyUsed:
		if day := e.GetDay().AsTime(); s.ID != "" && s.LastUsed.Before(day) {
			s.LastUsed = day
		}
	case *identityv1.ApiKeyRevoked:
		if s.ID != "" {
			s.Revoked = true
		}
	}
	return s
}

// Credentials are the key, while nobody has revoked it; see credential.Issuer.
func (s State) Credentials() []credential.Credential {
	if !s.Live() {
		return nil
	}
	return []credential.Credential{{
		Hash: s.KeySHA256, Kind: credential.APIKey, Operator: s.Operator, Org: s.Org, App: s.ID, Scopes: s.Scopes, Expires: s.ExpiresAt,
	}}
}
