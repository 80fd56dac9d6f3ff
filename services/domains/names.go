package domains

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/directory"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

// names ties a domain's decisions to the claims on its name, and to what they mean for
// other domains: all of it is written, or nothing.
type names struct {
	book  claims.Book
	store eventstore.Store
	known *directory.Directory
}

func holder(id string) string { return subjects.Of("", subjects.Domain, id).String() }

func owned(name string) claims.Name {
	return claims.Name{Kind: claims.CustomDomain, Value: name}
}

// legacyHolder holds a domain that a deployment took when it was asked for, before
// domains were proved.
func legacyHolder(deployment string) string {
	return subjects.Of("", subjects.Deployment, deployment).String()
}

// With returns what must be appended together with a decision. An org has a name once,
// from when it is added; the name's owner is who has proved it. Errors:
// *claims.TakenError when a name that it needs is another's.
func (n names) With(ctx context.Context, s domain.State, decision proto.Message) ([]eventstore.Expected, error) {
	switch e := decision.(type) {
	case *domainv1.DomainAdded:
		taken, err := n.book.Take(ctx, holder(e.GetDomainId()), claims.OrgsDomain(e.GetOrgId(), e.GetName()))
		if err != nil || !e.GetPrimary() {
			return taken, err
		}
		others, err := n.unsetOthers(ctx, e.GetDeploymentId(), e.GetDomainId())
		return append(taken, others...), err
	case *domainv1.DomainVerified:
		return n.own(ctx, s, e.GetMethod())
	case *domainv1.PrimaryDomainSet:
		return n.unsetOthers(ctx, s.DeploymentID, s.ID)
	case *domainv1.DomainRemoved:
		return n.book.Release(ctx, holder(s.ID), owned(s.Name), claims.OrgsDomain(s.Org, s.Name))
	}
	return nil, nil
}

// own makes the domain its name's owner. What another has proved goes over to who proves
// it by its TXT record.
func (n names) own(ctx context.Context, s domain.State, method string) ([]eventstore.Expected, error) {
	name := owned(s.Name)
	claim, err := n.book.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	switch {
	case claim.Holder == holder(s.ID):
		return nil, nil
	case claim.Holder == "", claim.Holder == legacyHolder(s.DeploymentID):
		return []eventstore.Expected{n.book.Move(name, claim, holder(s.ID))}, nil
	case method != domain.ByTXT:
		return nil, &claims.TakenError{Names: []claims.Name{name}}
	}
	out := []eventstore.Expected{n.book.Move(name, claim, holder(s.ID))}
	id, isDomain := strings.CutPrefix(claim.Holder, subjects.Domain+"/")
	former, known := n.known.Known(id)
	switch {
	case !isDomain:
		return out, nil
	case !known:
		return nil, fmt.Errorf("who has %s is not known yet: %w", s.Name, eventstore.ErrConflict)
	}
	state, sequence, err := n.load(ctx, former)
	if err != nil || !state.Live() {
		return out, err
	}
	lost := &domainv1.DomainLost{Reason: fmt.Sprintf("another organization proved with a TXT record that %s is its own", s.Name)}
	out = append(out, eventstore.Expected{LastSequence: sequence, Event: eventstore.Event{Aggregate: former, ID: newID(), Payload: lost}})
	released, err := n.book.Release(ctx, holder(state.ID), claims.OrgsDomain(former.Org, state.Name))
	return append(out, released...), err
}

// unsetOthers ends that other domains of the app are its primary one.
func (n names) unsetOthers(ctx context.Context, app, id string) ([]eventstore.Expected, error) {
	var out []eventstore.Expected
	for _, other := range n.known.Of(app) {
		if other.ID == id || !other.Primary {
			continue
		}
		a := subjects.Of(other.Org, subjects.Domain, other.ID)
		state, sequence, err := n.load(ctx, a)
		if err != nil {
			return nil, err
		}
		if state.Live() && state.Primary {
			out = append(out, eventstore.Expected{LastSequence: sequence, Event: eventstore.Event{Aggregate: a, ID: newID(), Payload: &domainv1.PrimaryDomainUnset{}}})
		}
	}
	return out, nil
}

func (n names) load(ctx context.Context, a subjects.Aggregate) (domain.State, uint64, error) {
	events, err := n.store.Load(ctx, a, 0)
	if err != nil || len(events) == 0 {
		return domain.State{}, 0, err
	}
	return domain.Decider().Fold(domain.State{}, events), events[len(events)-1].Sequence, nil
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

type handler = decider.Handler[domain.State, domain.Command]
