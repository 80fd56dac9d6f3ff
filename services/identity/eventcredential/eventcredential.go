// Package eventcredential is the aggregate of one credential by which a NATS client
// outside reads an organization's events, for as long as who made it is a member.
package eventcredential

import (
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
)

var (
	// ErrExists is returned when a credential is to be made twice.
	ErrExists = errors.New("the credential exists already")
	// ErrUnknown is returned for a credential that does not exist, or no longer.
	ErrUnknown = errors.New("there is no such credential")
	// ErrMalformed is returned for a command that lacks something.
	ErrMalformed = errors.New("the command lacks an id, an organization, an operator, a public key or a future end")
)

// State is a credential; the zero State is none yet.
type State struct {
	ID, Org, Operator, Name, PublicKey string
	// After is the sequence that reading the past begins after.
	After uint64
	// ExpiresAt is zero for never.
	ExpiresAt, CreatedAt time.Time
	Revoked              bool
}

// Live reports whether there is such a credential and nobody has revoked it.
func (s State) Live() bool { return s.ID != "" && !s.Revoked }

// Command asks for a change.
type Command interface{ command() }

type (
	// Create makes a credential.
	Create struct {
		ID, Org, Operator, Name, PublicKey string
		After                              uint64
		ExpiresAt                          time.Time
	}
	// Revoke ends it.
	Revoke struct{}
)

func (Create) command() {}
func (Revoke) command() {}

// Decider runs commands on a credential.
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
	case Revoke:
		if !s.Live() {
			return nil, ErrUnknown
		}
		return &identityv1.EventCredentialRevoked{}, nil
	default:
		return nil, ErrMalformed
	}
}

// userKey begins every NATS user key that is public.
const userKey = "U"

func create(s State, c Create, now time.Time) (proto.Message, error) {
	switch {
	case s.ID != "":
		return nil, ErrExists
	case c.ID == "", c.Org == "", c.Operator == "", !strings.HasPrefix(c.PublicKey, userKey):
		return nil, ErrMalformed
	case !c.ExpiresAt.IsZero() && !c.ExpiresAt.After(now):
		return nil, ErrMalformed
	}
	e := &identityv1.EventCredentialCreated{
		CredentialId: c.ID, OrgId: c.Org, OperatorId: c.Operator, Name: c.Name, PublicKey: c.PublicKey, AfterSequence: c.After,
	}
	if !c.ExpiresAt.IsZero() {
		e.ExpiresAt = timestamppb.New(c.ExpiresAt)
	}
	return e, nil
}

// Evolve folds one event in.
func Evolve(s State, rec eventstore.Recorded) State {
	switch e := rec.Payload.(type) {
	case *identityv1.EventCredentialCreated:
		if s.ID != "" {
			return s
		}
		s = State{
			ID: e.GetCredentialId(), Org: e.GetOrgId(), Operator: e.GetOperatorId(), Name: e.GetName(), PublicKey: e.GetPublicKey(),
			After: e.GetAfterSequence(), CreatedAt: rec.Time,
		}
		if e.GetExpiresAt() != nil {
			s.ExpiresAt = e.GetExpiresAt().AsTime()
		}
	case *identityv1.EventCredentialRevoked:
		if s.ID != "" {
			s.Revoked = true
		}
	}
	return s
}
