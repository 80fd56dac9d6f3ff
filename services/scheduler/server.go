package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/readmodel"
)

// freshWithin bounds how long a read waits for the rows to have what was
// acknowledged before it.
const freshWithin = 2 * time.Second

// server turns RPCs into commands and questions; it decides nothing.
type server struct {
	schedulerv1.UnimplementedSchedulerServiceServer
	*Service
}

func (s server) CreateDeployment(ctx context.Context, in *schedulerv1.CreateDeploymentRequest) (*schedulerv1.CreateDeploymentResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	state, err := s.create(ctx, in.Principal, in)
	s.figures.Decided("Create", err)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &schedulerv1.CreateDeploymentResponse{Deployment: s.summary(state)}, nil
}

func (s server) RestartDeployment(ctx context.Context, in *schedulerv1.RestartDeploymentRequest) (*schedulerv1.RestartDeploymentResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	before, err := s.find(ctx, in.Principal, in.Id)
	if err != nil {
		s.figures.Decided("Restart", err)
		return nil, s.answer(ctx, err)
	}
	state, err := s.command(ctx, in.Principal, in.Id, deployment.Restart{
		ReleaseID: uuid.Must(uuid.NewV7()).String(), ContainerName: containerName(before.Subdomain), By: in.Principal.AppId})
	s.figures.Decided("Restart", err)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &schedulerv1.RestartDeploymentResponse{Deployment: s.summary(state)}, nil
}

func (s server) StopDeployment(ctx context.Context, in *schedulerv1.StopDeploymentRequest) (*schedulerv1.StopDeploymentResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	state, err := s.command(ctx, in.Principal, in.Id, deployment.Stop{By: in.Principal.AppId})
	s.figures.Decided("Stop", err)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &schedulerv1.StopDeploymentResponse{Deployment: s.summary(state)}, nil
}

func (s server) DestroyDeployment(ctx context.Context, in *schedulerv1.DestroyDeploymentRequest) (*schedulerv1.DestroyDeploymentResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	state, err := s.command(ctx, in.Principal, in.Id, deployment.Destroy{By: in.Principal.AppId})
	s.figures.Decided("Destroy", err)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &schedulerv1.DestroyDeploymentResponse{Deployment: s.summary(state)}, nil
}

func (s server) GetDeployment(ctx context.Context, in *schedulerv1.GetDeploymentRequest) (*schedulerv1.GetDeploymentResponse, error) {
	d, err := s.read(ctx, in.Principal, in.Id)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	if err := s.seeDomains(ctx, in.Principal.OrgId); err != nil {
		return nil, s.answer(ctx, err)
	}
	s.showDomain(d)
	return &schedulerv1.GetDeploymentResponse{Deployment: d}, nil
}

func (s server) ListDeployments(ctx context.Context, in *schedulerv1.ListDeploymentsRequest) (*schedulerv1.ListDeploymentsResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	if err := s.fresh(ctx, subjects.OrgFilter(in.Principal.OrgId, subjects.Deployment)); err != nil {
		return nil, s.answer(ctx, err)
	}
	list, err := s.rows.List(ctx, in.Principal.OrgId)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	if err := s.seeDomains(ctx, in.Principal.OrgId); err != nil {
		return nil, s.answer(ctx, err)
	}
	for _, d := range list {
		s.showDomain(d)
	}
	return &schedulerv1.ListDeploymentsResponse{Deployments: list}, nil
}

func (s server) summary(state deployment.State) *schedulerv1.Deployment {
	d := deployment.Summary(state)
	s.showDomain(d)
	return d
}

// showDomain shows the primary domain: until there is one of its own, that which the
// deployment was asked for with.
func (s server) showDomain(d *schedulerv1.Deployment) {
	if name, known := s.domains.Primary(d.Id); known {
		d.CustomDomain = name
	}
}

// seeDomains waits until the org's domains are known as they were when the call began.
func (s server) seeDomains(ctx context.Context, org string) error {
	last, err := s.deps.Store.LastSequence(ctx, subjects.OrgFilter(org, subjects.Domain))
	if err != nil {
		return fmt.Errorf("reading the end of the log: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, freshWithin)
	defer cancel()
	if err := s.domains.WaitFor(ctx, last); err != nil {
		return problem.Unavailable("The domains are not known up to now; try again in a moment.", time.Second)
	}
	return nil
}

func (s server) ListLogs(ctx context.Context, in *schedulerv1.ListLogsRequest) (*schedulerv1.ListLogsResponse, error) {
	if _, err := s.read(ctx, in.Principal, in.Id); err != nil {
		return nil, s.answer(ctx, err)
	}
	logs, err := s.rows.Logs(ctx, in.Id)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &schedulerv1.ListLogsResponse{Logs: logs}, nil
}

// read returns a deployment's row, as new as the log when the call began, for its
// organization only: what its members may do with it the gateway has checked.
func (s server) read(ctx context.Context, p *identityv1.Principal, id string) (*schedulerv1.Deployment, error) {
	if err := checkPrincipal(p); err != nil {
		return nil, err
	}
	if !wellFormed(id) {
		return nil, errNotFound()
	}
	if err := s.fresh(ctx, subjects.AnyOrg(subjects.Deployment, id)); err != nil {
		return nil, err
	}
	d, err := s.rows.Get(ctx, id)
	if errors.Is(err, readmodel.ErrNotFound) {
		return nil, errNotFound()
	}
	if err != nil {
		return nil, err
	}
	if d.OrgId != p.OrgId {
		return nil, errForeign()
	}
	return d, nil
}

// fresh waits until the rows have every event that matches and was acknowledged
// before the call.
func (s server) fresh(ctx context.Context, filter string) error {
	last, err := s.deps.Store.LastSequence(ctx, filter)
	if err != nil {
		return fmt.Errorf("reading the end of the log: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, freshWithin)
	defer cancel()
	if err := s.projection.WaitFor(ctx, last); err != nil {
		return problem.Unavailable("The read model is behind the log; try again in a moment.", time.Second)
	}
	return nil
}

// answer keeps the insides of unexpected errors in the log.
func (s server) answer(ctx context.Context, err error) error {
	if projection.IsAway(err) {
		s.deps.Log.WarnContext(ctx, "the database is away", "error", err)
		return problem.Unavailable("The database is not answering; try again in a moment.", time.Second)
	}
	if errors.Is(err, eventstore.ErrUnavailable) && problem.From(err).Code == problem.CodeInternal {
		s.deps.Log.WarnContext(ctx, "the event log is away", "error", err)
		return problem.Unavailable("The event log is not answering; try again in a moment.", time.Second)
	}
	p := problem.From(err)
	if p.Code == problem.CodeInternal {
		s.deps.Log.ErrorContext(ctx, "a call failed", "error", err)
	}
	return p
}

func checkPrincipal(p *identityv1.Principal) error {
	if p.GetOrgId() == "" || p.GetOperatorId() == "" || !subjects.ValidToken(p.OrgId) {
		return problem.Unauthorized("The call names no operator.")
	}
	return nil
}
