package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/credential"
	"github.com/slipway-paas/slipway/services/identity/eventcredential"
	"github.com/slipway-paas/slipway/services/identity/oauthapp"
)

// maxEventCredentials bounds those of one organization: each has a consumer of the log.
const maxEventCredentials = 10

// eventCredentials answers EventCredentialService.
type eventCredentials struct {
	identityv1.UnimplementedEventCredentialServiceServer
	*Service
}

// who calls, when they may manage the credentials of the organization they act for. An
// app may not, whatever its scopes: what it made would outlive the leave it was given.
func (s eventCredentials) who(ctx context.Context) (*identityv1.Principal, error) {
	p, err := s.ofOrg(ctx)
	if err != nil {
		return nil, err
	}
	if p.GetKind() != credential.Session && p.GetAppId() != oauthapp.CommandLine && !access.Holds(p.GetScopes(), access.Admin) {
		return nil, problem.Forbidden("An app may not manage event credentials; sign in as a person, or with slipway login.")
	}
	return p, nil
}

// CreateEventCredential implements identityv1.EventCredentialServiceServer.
func (s eventCredentials) CreateEventCredential(ctx context.Context, in *identityv1.CreateEventCredentialRequest) (*identityv1.CreateEventCredentialResponse, error) {
	p, err := s.who(ctx)
	if err != nil {
		return nil, err
	}
	var faults fields
	faults.add(printable(in.GetName(), 64), "name", "must have 1 to 64 printable characters")
	if at := in.GetExpiresAt(); at != nil {
		faults.add(at.IsValid() && at.AsTime().After(s.deps.Now()), "expires_at", "must be in the future; leave it out for a credential that does not expire")
	}
	if err := faults.err(); err != nil {
		return nil, err
	}
	if len(s.known.eventCredentialsOf(p.GetOrgId())) >= maxEventCredentials {
		return nil, problem.Limit(fmt.Sprintf("The organization has %d event credentials, which is as many as it may have; revoke some first.", maxEventCredentials), 0)
	}
	public, seed, err := newUserKey()
	if err != nil {
		return nil, s.answer(ctx, "make a NATS key", err)
	}
	command := eventcredential.Create{
		ID: newID(), Org: p.GetOrgId(), Operator: p.GetOperatorId(), Name: strings.TrimSpace(in.GetName()), PublicKey: public, After: in.GetAfterSequence(),
	}
	if in.GetExpiresAt() != nil {
		command.ExpiresAt = in.GetExpiresAt().AsTime()
	}
	state, err := s.changeEventCredential(ctx, p, command.ID, command)
	if err != nil {
		return nil, s.answer(ctx, "create an event credential", err)
	}
	return &identityv1.CreateEventCredentialResponse{EventCredential: shownEventCredential(state), Seed: seed, Url: s.config.SubscriptionsURL}, nil
}

func newUserKey() (public, seed string, err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return "", "", err
	}
	defer pair.Wipe()
	if public, err = pair.PublicKey(); err != nil {
		return "", "", err
	}
	raw, err := pair.Seed()
	return public, string(raw), err
}

func (s *Service) changeEventCredential(ctx context.Context, p *identityv1.Principal, id string, c eventcredential.Command) (eventcredential.State, error) {
	result, err := s.eventCredentials.Handle(ctx, decider.Command[eventcredential.Command]{
		Aggregate: subjects.Of(p.GetOrgId(), subjects.EventCredential, id), Command: c, Actor: p.GetOperatorId(),
	})
	if err != nil {
		return eventcredential.State{}, fmt.Errorf("%T: %w", c, err)
	}
	return result.State, s.seen(ctx, result.Sequence)
}

func shownEventCredential(c eventcredential.State) *identityv1.EventCredential {
	out := &identityv1.EventCredential{
		Id: c.ID, Name: c.Name, PublicKey: c.PublicKey, Subject: subjects.OrgEvents(c.Org), Stream: subjects.StreamEvents,
		Consumer: subjects.SubscriptionConsumer(c.ID), CreatedBy: c.Operator, CreatedAt: millis(c.CreatedAt),
	}
	if !c.ExpiresAt.IsZero() {
		out.ExpiresAt = millis(c.ExpiresAt)
	}
	return out
}

// ListEventCredentials implements identityv1.EventCredentialServiceServer.
func (s eventCredentials) ListEventCredentials(ctx context.Context, _ *identityv1.ListEventCredentialsRequest) (*identityv1.ListEventCredentialsResponse, error) {
	p, err := s.who(ctx)
	if err != nil {
		return nil, err
	}
	res := &identityv1.ListEventCredentialsResponse{}
	for _, c := range s.known.eventCredentialsOf(p.GetOrgId()) {
		res.EventCredentials = append(res.EventCredentials, shownEventCredential(c))
	}
	return res, nil
}

// RevokeEventCredential implements identityv1.EventCredentialServiceServer.
func (s eventCredentials) RevokeEventCredential(ctx context.Context, in *identityv1.RevokeEventCredentialRequest) (*identityv1.RevokeEventCredentialResponse, error) {
	p, err := s.who(ctx)
	if err != nil {
		return nil, err
	}
	none := problem.NotFound("There is no such event credential in this organization; GET /api/v1/event-credentials lists them.")
	if !subjects.ValidToken(in.GetId()) {
		return nil, none
	}
	_, err = s.changeEventCredential(ctx, p, in.GetId(), eventcredential.Revoke{})
	if errors.Is(err, eventcredential.ErrUnknown) {
		return nil, none
	}
	if err != nil {
		return nil, s.answer(ctx, "revoke an event credential", err)
	}
	return &identityv1.RevokeEventCredentialResponse{Message: "Revoked"}, nil
}

func (d *directory) applyEventCredential(e eventstore.Recorded) {
	after := eventcredential.Evolve(d.eventCredentials[e.Aggregate.Org][e.Aggregate.ID], e)
	_, member := d.orgs[after.Org].Members[after.Operator]
	if after.Live() && member && after.ID == e.Aggregate.ID && after.Org == e.Aggregate.Org {
		if d.eventCredentials[after.Org] == nil {
			d.eventCredentials[after.Org] = map[string]eventcredential.State{}
		}
		d.eventCredentials[after.Org][after.ID] = after
		return
	}
	delete(d.eventCredentials[e.Aggregate.Org], e.Aggregate.ID)
}

// left ends what the operator made for outsiders; it stays ended when they come back.
func (d *directory) left(org, operator string) {
	for id, c := range d.eventCredentials[org] {
		if c.Operator == operator {
			delete(d.eventCredentials[org], id)
		}
	}
}

// eventCredentialsOf are the organization's that nobody has revoked, the oldest first.
func (d *directory) eventCredentialsOf(org string) []eventcredential.State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []eventcredential.State
	for _, c := range d.eventCredentials[org] {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b eventcredential.State) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return out
}
