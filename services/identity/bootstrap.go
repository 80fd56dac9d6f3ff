package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/operator"
)

// DefaultOrg is the organization of the first operator.
const DefaultOrg = "default"

// ScopeDeploy lets a token use the deploy dialect, ScopeAdmin run the platform.
const (
	ScopeDeploy = access.DeployManage
	ScopeAdmin  = access.Admin
)

// firstScopes are the first operator's, whose platform it is.
func firstScopes() []string {
	return []string{ScopeDeploy, access.AppsWrite, access.EventsRead, ScopeAdmin}
}

// firstOperator is the claim that only one operator can hold, ever: whoever takes
// it is the first, however many processes start at once.
var firstOperator = subjects.Of(subjects.Platform, subjects.Claim, "first-operator")

// Credentials are what the first operator signs in with. The token is in nobody's
// hands but the caller's.
type Credentials struct {
	OperatorID  string
	OrgID       string
	AppID       string
	AccessToken string
}

// Bootstrap makes the first operator of the platform, once, however often and by
// however many processes it is called. Only the call that made it gets
// created == true and the access token; the others get the ids alone. After
// eventstore.ErrUnavailable call it again. A first operator of before there were
// admins is made one.
func (s *Service) Bootstrap(ctx context.Context) (c Credentials, created bool, err error) {
	state, sequence, err := s.first(ctx)
	if err != nil {
		return Credentials{}, false, err
	}
	if state.Exists() {
		return newCredentials(state, ""), false, errors.Join(s.found(ctx, state), s.grant(ctx, state, sequence))
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Credentials{}, false, fmt.Errorf("make the first operator's id: %w", err)
	}
	app, err := uuid.NewV7()
	if err != nil {
		return Credentials{}, false, fmt.Errorf("make the first app's id: %w", err)
	}
	token, hash := newToken()
	command := operator.Bootstrap{ID: id.String(), OrgID: DefaultOrg, AppID: app.String(), TokenSHA256: hash, Scopes: firstScopes()}
	made, err := operator.Decide(operator.State{}, command, s.deps.Now())
	if err != nil {
		return Credentials{}, false, fmt.Errorf("make the first operator: %w", err)
	}
	self := subjects.Of(DefaultOrg, subjects.Operator, id.String())
	claim := &claimv1.ClaimTaken{Kind: "first_operator", Name: DefaultOrg, Holder: self.String()}
	_, err = s.deps.Store.AppendBatch(ctx, []eventstore.Expected{
		{Event: s.event(firstOperator, "first-operator-claim-"+id.String(), claim)},
		{Event: s.event(defaultOrg(), "default-org-"+id.String(), orgOf(id.String()))},
		{Event: s.event(self, "first-operator-"+id.String(), made)},
	})
	if errors.Is(err, eventstore.ErrConflict) {
		if state, _, err = s.first(ctx); err != nil {
			return Credentials{}, false, err
		}
		return newCredentials(state, ""), false, nil
	}
	if err != nil {
		return Credentials{}, false, fmt.Errorf("write the first operator to the log: %w", err)
	}
	return newCredentials(operator.Evolve(operator.State{}, eventstore.Recorded{Event: eventstore.Event{Payload: made}}), token), true, nil
}

func defaultOrg() subjects.Aggregate { return subjects.Of(DefaultOrg, subjects.Org, DefaultOrg) }

// orgOf makes the first operator's organization.
func orgOf(owner string) *identityv1.OrgCreated {
	return &identityv1.OrgCreated{OrgId: DefaultOrg, Name: DefaultOrg, OwnerId: owner}
}

// found makes the organization of a first operator of before there were any.
func (s *Service) found(ctx context.Context, state operator.State) error {
	last, err := s.deps.Store.LastSequence(ctx, defaultOrg().Filter())
	if err != nil {
		return fmt.Errorf("look for the first operator's organization: %w", err)
	}
	if last > 0 {
		return nil
	}
	_, err = s.deps.Store.Append(ctx, eventstore.Expected{Event: s.event(defaultOrg(), "default-org-"+state.ID, orgOf(state.ID))})
	if err != nil && !errors.Is(err, eventstore.ErrConflict) {
		return fmt.Errorf("write the first operator's organization to the log: %w", err)
	}
	return nil
}

// grant gives the first operator the scopes that came after it.
func (s *Service) grant(ctx context.Context, state operator.State, sequence uint64) error {
	granted, err := operator.Decide(state, operator.GrantScopes{Scopes: firstScopes()}, s.deps.Now())
	if errors.Is(err, operator.ErrGranted) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("grant the first operator's scopes: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an event's id: %w", err)
	}
	self := subjects.Of(state.OrgID, subjects.Operator, state.ID)
	_, err = s.deps.Store.Append(ctx, eventstore.Expected{Event: s.event(self, id.String(), granted), LastSequence: sequence})
	switch {
	case errors.Is(err, eventstore.ErrConflict):
		// Another process has been faster, or will be told at the next start.
		return nil
	case err != nil:
		return fmt.Errorf("write the granted scopes to the log: %w", err)
	}
	s.deps.Log.InfoContext(ctx, "the first operator may run the platform now", "operator_id", state.ID, "scopes", state.Lacks(firstScopes()...))
	return nil
}

// ReplaceToken gives the first operator another access token and ends the old one.
// It is for who owns the platform's data and lost its credentials. Errors:
// operator.ErrUnknown before Bootstrap, eventstore.ErrConflict when two do it at
// once.
func (s *Service) ReplaceToken(ctx context.Context) (Credentials, error) {
	state, sequence, err := s.first(ctx)
	if err != nil {
		return Credentials{}, err
	}
	token, hash := newToken()
	replaced, err := operator.Decide(state, operator.ReplaceToken{TokenSHA256: hash}, s.deps.Now())
	if err != nil {
		return Credentials{}, fmt.Errorf("replace the first operator's token: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Credentials{}, fmt.Errorf("make an event's id: %w", err)
	}
	self := subjects.Of(state.OrgID, subjects.Operator, state.ID)
	_, err = s.deps.Store.Append(ctx, eventstore.Expected{Event: s.event(self, id.String(), replaced), LastSequence: sequence})
	if err != nil {
		return Credentials{}, fmt.Errorf("write the replaced token's hash to the log: %w", err)
	}
	return newCredentials(state, token), nil
}

// first loads the first operator and the sequence of its last event; the zero
// State when there is none.
func (s *Service) first(ctx context.Context) (operator.State, uint64, error) {
	claims, err := s.deps.Store.Load(ctx, firstOperator, 0)
	if err != nil {
		return operator.State{}, 0, fmt.Errorf("look for the first operator: %w", err)
	}
	if len(claims) == 0 {
		return operator.State{}, 0, nil
	}
	taken, ok := claims[0].Payload.(*claimv1.ClaimTaken)
	if !ok {
		return operator.State{}, 0, fmt.Errorf("the first operator's claim is a %T", claims[0].Payload)
	}
	id := taken.GetHolder()[min(len(subjects.Operator)+1, len(taken.GetHolder())):]
	events, err := s.deps.Store.Load(ctx, subjects.Of(taken.GetName(), subjects.Operator, id), 0)
	if err != nil {
		return operator.State{}, 0, fmt.Errorf("load the first operator: %w", err)
	}
	var state operator.State
	var sequence uint64
	for _, e := range events {
		state, sequence = operator.Evolve(state, e), e.Sequence
	}
	if !state.Exists() {
		return operator.State{}, 0, fmt.Errorf("the log names operator %q as the first and holds no such operator", id)
	}
	return state, sequence, nil
}

func newCredentials(s operator.State, token string) Credentials {
	return Credentials{OperatorID: s.ID, OrgID: s.OrgID, AppID: s.AppID, AccessToken: token}
}
