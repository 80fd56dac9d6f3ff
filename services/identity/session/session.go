// Package session is the aggregate of one login: a token that speaks for its operator
// until it expires, or the operator ends all of them.
package session

import (
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/identity/credential"
)

var (
	// ErrExists is returned when a session is to be opened twice.
	ErrExists = errors.New("the session is open already")
	// ErrMalformed is returned for a command that lacks something.
	ErrMalformed = errors.New("the command lacks an id, an operator, a hash or a future end")
)

// State is a session; the zero State is none yet.
type State struct {
	ID, Operator string
	TokenSHA256  credential.Hash
	ExpiresAt    time.Time
	// Epoch is the operator's LoginEpoch at login.
	Epoch uint32
}

// Open opens a session.
type Open State

// Decide says what happens. Errors: ErrExists, ErrMalformed.
func Decide(s State, c Open, now time.Time) (proto.Message, error) {
	switch {
	case s.ID != "":
		return nil, ErrExists
	case c.ID == "", c.Operator == "", c.TokenSHA256 == credential.Hash{}, !c.ExpiresAt.After(now):
		return nil, ErrMalformed
	}
	return &identityv1.SessionOpened{
		SessionId: c.ID, OperatorId: c.Operator, TokenSha256: c.TokenSHA256[:],
		ExpiresAt: timestamppb.New(c.ExpiresAt), Epoch: c.Epoch,
	}, nil
}

// Evolve folds one event in.
func Evolve(s State, rec eventstore.Recorded) State {
	e, ok := rec.Payload.(*identityv1.SessionOpened)
	if !ok || s.ID != "" || len(e.GetTokenSha256()) != len(credential.Hash{}) {
		return s
	}
	return State{
		ID: e.GetSessionId(), Operator: e.GetOperatorId(), TokenSHA256: credential.Hash(e.GetTokenSha256()),
		ExpiresAt: e.GetExpiresAt().AsTime(), Epoch: e.GetEpoch(),
	}
}

// Credentials are the session's token; see credential.Issuer. Its holder may what the
// operator may.
func (s State) Credentials() []credential.Credential {
	if s.ID == "" {
		return nil
	}
	return []credential.Credential{{
		Hash: s.TokenSHA256, Kind: credential.Session, Operator: s.Operator, App: s.ID, Scopes: access.Scopes(),
		Expires: s.ExpiresAt, Bond: credential.ToLogin, Epoch: s.Epoch,
	}}
}
