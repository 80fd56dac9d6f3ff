package domains

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/caller"
	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/directory"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

const (
	// maxDomains bounds those of one app.
	maxDomains = 50
	// seenWithin bounds how long an answer waits until the next one will show the same.
	seenWithin = 2 * time.Second
	verified   = "Domain verified successfully"
)

// server answers DomainService; what it decides is the aggregate's.
type server struct {
	domainv1.UnimplementedDomainServiceServer
	*Service
}

// app is who calls, and the app of their organization that they mean. It is the one
// place that binds a call to an organization.
func (s server) app(ctx context.Context, called string) (*identityv1.Principal, directory.App, error) {
	if s.Ready() != nil {
		return nil, directory.App{}, problem.Unavailable("Slipway is starting and does not know its apps yet; try again in a second.", time.Second)
	}
	p := &identityv1.Principal{}
	if err := caller.Incoming(ctx, p); err != nil || p.GetOperatorId() == "" || !subjects.ValidToken(p.GetOrgId()) || p.GetOrgId() == subjects.Platform {
		return nil, directory.App{}, problem.Unauthorized("The call names no operator and organization.")
	}
	app, ok := s.known.Called(p.GetOrgId(), called)
	if !ok {
		// It may have been made a moment ago.
		if err := s.see(ctx, subjects.OrgFilter(p.GetOrgId(), subjects.Deployment)); err != nil {
			return nil, directory.App{}, err
		}
		app, ok = s.known.Called(p.GetOrgId(), called)
	}
	if !ok {
		return nil, directory.App{}, problem.NotFound("There is no such app in this organization: name it by its id or its subdomain.")
	}
	return p, app, nil
}

// see waits until what matches and was in the log when the call began is known.
func (s server) see(ctx context.Context, filter string) error {
	last, err := s.deps.Store.LastSequence(ctx, filter)
	if err != nil {
		return s.answer(ctx, "read the end of the log", err)
	}
	return s.seen(ctx, last)
}

func (s server) seen(ctx context.Context, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, seenWithin)
	defer cancel()
	if err := s.known.WaitFor(ctx, sequence); err != nil {
		return problem.Unavailable("It is done, and does not count everywhere yet; look again in a moment.", time.Second)
	}
	return nil
}

// own is who calls, and a domain of their organization's app.
func (s server) own(ctx context.Context, called, name string) (*identityv1.Principal, subjects.Aggregate, domain.State, error) {
	p, app, err := s.app(ctx, called)
	if err != nil {
		return nil, subjects.Aggregate{}, domain.State{}, err
	}
	if err := s.see(ctx, subjects.OrgFilter(app.Org, subjects.Domain)); err != nil {
		return nil, subjects.Aggregate{}, domain.State{}, err
	}
	ascii, _ := s.config.rules().Parse(name)
	for _, of := range s.known.Of(app.ID) {
		if of.Name == ascii || of.Name == strings.ToLower(name) {
			return p, subjects.Of(of.Org, subjects.Domain, of.ID), of, nil
		}
	}
	return nil, subjects.Aggregate{}, domain.State{}, noDomain()
}

func noDomain() error {
	return problem.NotFound("The app has no such domain; GET /api/v1/applications/{id}/domains lists those that it has.")
}

// command carries out what somebody asks for, and waits until all will see it.
func (s server) command(ctx context.Context, p *identityv1.Principal, a subjects.Aggregate, c domain.Command) (domain.State, error) {
	result, err := s.handle(ctx, a, c, asked{command: rpc.CommandID(ctx), actor: actor(p), traceParent: observe.TraceParent(ctx)})
	if err != nil {
		return domain.State{}, fmt.Errorf("%T: %w", c, err)
	}
	return result.State, s.seen(ctx, result.Sequence)
}

func actor(p *identityv1.Principal) string {
	if p.GetAppId() != "" {
		return p.GetAppId()
	}
	return p.GetOperatorId()
}

// answer makes an error of the inside one for the outside.
func (s server) answer(ctx context.Context, doing string, err error) error {
	var own *problem.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, domain.ErrUnknown):
		return noDomain()
	case errors.Is(err, eventstore.ErrConflict):
		return problem.Conflict("Others are changing the same at the same time; look at it, and try again.")
	case errors.Is(err, eventstore.ErrUnavailable):
		return problem.Unavailable("The event log is not answering; whether it was done is not known. Look, and try again.", time.Second)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	s.deps.Log.ErrorContext(ctx, "could not "+doing, "error", err)
	return problem.From(err)
}

// ListDomains implements domainv1.DomainServiceServer.
func (s server) ListDomains(ctx context.Context, in *domainv1.ListDomainsRequest) (*domainv1.ListDomainsResponse, error) {
	_, app, err := s.app(ctx, in.GetId())
	if err != nil {
		return nil, err
	}
	if err := s.see(ctx, subjects.OrgFilter(app.Org, subjects.Domain)); err != nil {
		return nil, err
	}
	res := &domainv1.ListDomainsResponse{}
	for _, of := range s.known.Of(app.ID) {
		res.Domains = append(res.Domains, s.shown(of))
	}
	return res, nil
}

// AddDomain implements domainv1.DomainServiceServer.
func (s server) AddDomain(ctx context.Context, in *domainv1.AddDomainRequest) (*domainv1.AddDomainResponse, error) {
	p, app, err := s.app(ctx, in.GetId())
	if err != nil {
		return nil, err
	}
	id := rpc.NewID(ctx, subjects.Domain)
	if command := rpc.CommandID(ctx); command != "" {
		if before, found, err := s.handler.Written(ctx, subjects.Of(app.Org, subjects.Domain, id), command); err != nil {
			return nil, s.answer(ctx, "look for an earlier attempt", err)
		} else if found {
			return &domainv1.AddDomainResponse{Domain: s.shown(before.State)}, nil
		}
	}
	name, err := s.free(ctx, app, in.GetDomain())
	if err != nil {
		return nil, s.answer(ctx, "add a domain", err)
	}
	owner, err := s.claims.Load(ctx, owned(name))
	if err != nil {
		return nil, s.answer(ctx, "add a domain", err)
	}
	state, err := s.command(ctx, p, subjects.Of(app.Org, subjects.Domain, id), domain.Add{
		ID: id, Org: app.Org, DeploymentID: app.ID, Name: name, Target: app.Host, Proof: newProof(),
		ProofNeeded: owner.Holder != "", Primary: in.GetIsPrimary(), By: actor(p),
	})
	if taken := (*claims.TakenError)(nil); errors.As(err, &taken) {
		return nil, fault("another app of the organization was given the name a moment ago; remove it there first")
	}
	if err != nil {
		return nil, s.answer(ctx, "add a domain", err)
	}
	s.deps.Log.InfoContext(ctx, "a domain is added", "domain", id, "name", name, "deployment", app.ID)
	return &domainv1.AddDomainResponse{Domain: s.shown(state)}, nil
}

func fault(messages ...string) error {
	var fields []problem.Field
	for _, m := range messages {
		fields = append(fields, problem.Field{Field: "domain", Message: m})
	}
	return problem.Validation(fields)
}

// free is the name as it is kept, when the app may have it.
func (s server) free(ctx context.Context, app directory.App, text string) (string, error) {
	name, faults := s.config.rules().Parse(text)
	if !app.Allowed {
		faults = append(faults, "the app's tier does not allow custom domains; choose one with custom_domain_allowed")
	}
	if len(faults) > 0 {
		return "", fault(faults...)
	}
	if err := s.see(ctx, subjects.OrgFilter(app.Org, subjects.Domain)); err != nil {
		return "", err
	}
	for _, of := range s.known.Named(name) {
		if of.Org != app.Org {
			continue
		}
		if of.DeploymentID == app.ID {
			return "", fault(fmt.Sprintf("%s is a domain of this app already", name))
		}
		other, _ := s.known.App(of.DeploymentID)
		return "", fault(fmt.Sprintf("%s is a domain of your app %q already; remove it there first", name, other.Subdomain))
	}
	if len(s.known.Of(app.ID)) >= maxDomains {
		return "", problem.Limit(fmt.Sprintf("The app has %d domains, which is as many as it may have; remove some first.", maxDomains), 0)
	}
	return name, nil
}

// RemoveDomain implements domainv1.DomainServiceServer.
func (s server) RemoveDomain(ctx context.Context, in *domainv1.RemoveDomainRequest) (*domainv1.RemoveDomainResponse, error) {
	p, a, of, err := s.own(ctx, in.GetId(), in.GetDomain())
	if err != nil {
		return nil, err
	}
	if _, err := s.command(ctx, p, a, domain.Remove{By: actor(p)}); err != nil {
		return nil, s.answer(ctx, "remove a domain", err)
	}
	s.deps.Log.InfoContext(ctx, "a domain is removed", "domain", a.ID, "name", of.Name, "deployment", of.DeploymentID)
	return &domainv1.RemoveDomainResponse{}, nil
}

// VerifyDomain implements domainv1.DomainServiceServer.
func (s server) VerifyDomain(ctx context.Context, in *domainv1.VerifyDomainRequest) (*domainv1.VerifyDomainResponse, error) {
	p, a, _, err := s.own(ctx, in.GetId(), in.GetDomain())
	if err != nil {
		return nil, err
	}
	if _, err := s.command(ctx, p, a, domain.Check{By: actor(p)}); err != nil {
		return nil, s.answer(ctx, "verify a domain", err)
	}
	seen, err := s.lookAt(ctx, a)
	if err != nil {
		return nil, s.answer(ctx, "verify a domain", err)
	}
	if err := s.see(ctx, subjects.OrgFilter(a.Org, subjects.Domain)); err != nil {
		return nil, err
	}
	switch {
	case !seen.state.Live():
		return nil, noDomain()
	case seen.verdict.Method != "":
		return &domainv1.VerifyDomainResponse{Success: true, Message: verified}, nil
	}
	return &domainv1.VerifyDomainResponse{Message: sentence(seen.verdict.Reason)}, nil
}

// sentence makes one of a reason.
func sentence(reason string) string {
	if reason == "" {
		return "The domain is not verified yet."
	}
	return strings.TrimSuffix(reason, ".") + "."
}

// SetPrimaryDomain implements domainv1.DomainServiceServer.
func (s server) SetPrimaryDomain(ctx context.Context, in *domainv1.SetPrimaryDomainRequest) (*domainv1.SetPrimaryDomainResponse, error) {
	p, a, of, err := s.own(ctx, in.GetId(), in.GetDomain())
	if err != nil {
		return nil, err
	}
	if of.Primary {
		return &domainv1.SetPrimaryDomainResponse{}, nil
	}
	if _, err := s.command(ctx, p, a, domain.SetPrimary{By: actor(p)}); err != nil {
		return nil, s.answer(ctx, "set a primary domain", err)
	}
	return &domainv1.SetPrimaryDomainResponse{}, nil
}
