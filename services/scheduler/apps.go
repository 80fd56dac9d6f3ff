package scheduler

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/google/uuid"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// maxAppName is longer than any id or subdomain.
const maxAppName = 64

func (s server) ScaleDeployment(ctx context.Context, in *schedulerv1.ScaleDeploymentRequest) (*schedulerv1.ScaleDeploymentResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	state, err := s.scale(ctx, in)
	s.figures.Decided("Scale", err)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &schedulerv1.ScaleDeploymentResponse{Deployment: deployment.Summary(state)}, nil
}

func (s server) scale(ctx context.Context, in *schedulerv1.ScaleDeploymentRequest) (deployment.State, error) {
	if most := int64(s.config.MaxInstances); in.Count < 0 || in.Count > most {
		return deployment.State{}, problem.Validation([]problem.Field{{Field: "processes.web",
			Message: fmt.Sprintf("is %d: an app has 1 to %d instances", in.Count, most)}})
	}
	return s.command(ctx, in.Principal, in.Id, deployment.ScaleTo{Count: int(in.Count), By: in.Principal.AppId})
}

func (s server) RollbackDeployment(ctx context.Context, in *schedulerv1.RollbackDeploymentRequest) (*schedulerv1.RollbackDeploymentResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	state, err := s.rollback(ctx, in)
	s.figures.Decided("Rollback", err)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	out := &schedulerv1.RollbackDeploymentResponse{Deployment: deployment.Summary(state)}
	if n := len(state.History); n > 0 {
		out.RolledBackTo = state.History[n-1].From
	}
	return out, nil
}

func (s server) rollback(ctx context.Context, in *schedulerv1.RollbackDeploymentRequest) (deployment.State, error) {
	if in.ReleaseNumber != nil && (*in.ReleaseNumber < 1 || *in.ReleaseNumber > math.MaxUint32) {
		return deployment.State{}, problem.Validation([]problem.Field{{Field: "version",
			Message: fmt.Sprintf("is %d: releases are numbered from 1", *in.ReleaseNumber)}})
	}
	before, err := s.find(ctx, in.Principal, in.Id)
	if err != nil {
		return deployment.State{}, err
	}
	return s.command(ctx, in.Principal, in.Id, deployment.Rollback{Number: in.GetReleaseNumber(), ReleaseID: uuid.Must(uuid.NewV7()).String(),
		ContainerName: containerName(before.Subdomain), By: in.Principal.AppId})
}

func (s server) ListReleases(ctx context.Context, in *schedulerv1.ListReleasesRequest) (*schedulerv1.ListReleasesResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	state, err := s.find(ctx, in.Principal, in.Id)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &schedulerv1.ListReleasesResponse{Releases: deployment.Releases(state)}, nil
}

func (s server) ResolveApp(ctx context.Context, in *schedulerv1.ResolveAppRequest) (*schedulerv1.ResolveAppResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	state, err := s.resolve(ctx, in.Principal, in.App)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &schedulerv1.ResolveAppResponse{Deployment: deployment.Summary(state)}, nil
}

// resolve finds the organization's deployment by id or by the subdomain that it holds.
// That another organization has the name is not said.
func (s server) resolve(ctx context.Context, p *identityv1.Principal, app string) (deployment.State, error) {
	if wellFormed(app) {
		return s.find(ctx, p, app)
	}
	unknown := problem.NotFound("App not found: your organization has none with this subdomain or id.")
	if app == "" || len(app) > maxAppName {
		return deployment.State{}, unknown
	}
	claim, err := s.names.book.Load(ctx, claims.Name{Kind: claims.Subdomain, Value: app})
	if err != nil {
		return deployment.State{}, err
	}
	_, id, _ := strings.Cut(claim.Holder, "/")
	if id == "" {
		return deployment.State{}, unknown
	}
	state, err := s.find(ctx, p, id)
	if code := problem.From(err).Code; err != nil && (code == problem.CodeForbidden || code == problem.CodeNotFound) {
		return deployment.State{}, unknown
	}
	return state, err
}
