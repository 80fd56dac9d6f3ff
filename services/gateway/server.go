package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/events"
	"github.com/slipway-paas/slipway/services/gateway/statusview"
)

// callTimeout bounds one request's calls to other services.
const callTimeout = 20 * time.Second

// deployServer is the deploy dialect: it translates, and decides nothing. Every
// method expects a principal in its context.
type deployServer struct {
	deployv1.UnimplementedDeployServiceServer
	scheduler schedulerv1.SchedulerServiceClient
	tiers     billingv1.TierServiceClient
	view      *statusview.View
	streams   *events.Streams
	log       *slog.Logger
}

func (s *deployServer) ListTiers(ctx context.Context, _ *deployv1.ListTiersRequest) (*deployv1.ListTiersResponse, error) {
	ctx, cancel := outgoing(ctx)
	defer cancel()
	tiers, err := s.tiers.ListTiers(ctx, &billingv1.ListTiersRequest{})
	if err != nil {
		return nil, s.failed(ctx, "list tiers", err)
	}
	res := &deployv1.ListTiersResponse{}
	for _, t := range tiers.GetTiers() {
		res.Tiers = append(res.Tiers, tier(t))
	}
	return res, nil
}

func (s *deployServer) CreateDeployment(ctx context.Context, req *deployv1.CreateDeploymentRequest) (*deployv1.CreateDeploymentResponse, error) {
	ctx, cancel := outgoing(ctx)
	defer cancel()
	command := &schedulerv1.CreateDeploymentRequest{
		Principal: authn.Principal(ctx), Subdomain: req.GetSubdomain(), Image: req.GetImage(), Tier: req.GetTier(),
		CustomDomain: req.GetCustomDomain().GetValue(), EnvVars: req.GetEnvVars(),
	}
	if req.Port != nil {
		port := int64(req.GetPort().GetValue())
		command.Port = &port
	}
	res, err := s.scheduler.CreateDeployment(ctx, command)
	if err != nil {
		return nil, s.failed(ctx, "create a deployment", err)
	}
	return &deployv1.CreateDeploymentResponse{Deployment: s.written(res.GetDeployment())}, nil
}

func (s *deployServer) ListDeployments(ctx context.Context, _ *deployv1.ListDeploymentsRequest) (*deployv1.ListDeploymentsResponse, error) {
	ctx, cancel := outgoing(ctx)
	defer cancel()
	list, err := s.scheduler.ListDeployments(ctx, &schedulerv1.ListDeploymentsRequest{Principal: authn.Principal(ctx)})
	if err != nil {
		return nil, s.failed(ctx, "list deployments", err)
	}
	res := &deployv1.ListDeploymentsResponse{}
	for _, d := range list.GetDeployments() {
		res.Deployments = append(res.Deployments, s.shown(d))
	}
	return res, nil
}

func (s *deployServer) GetDeployment(ctx context.Context, req *deployv1.GetDeploymentRequest) (*deployv1.GetDeploymentResponse, error) {
	d, err := s.load(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &deployv1.GetDeploymentResponse{Deployment: s.shown(d)}, nil
}

func (s *deployServer) GetDeploymentStatus(ctx context.Context, req *deployv1.GetDeploymentStatusRequest) (*deployv1.GetDeploymentStatusResponse, error) {
	status, err := s.status(ctx, authn.Principal(ctx), req.GetId())
	if err != nil {
		return nil, err
	}
	if status != nil {
		return &deployv1.GetDeploymentStatusResponse{
			Id: status.ID, Status: status.Status, Subdomain: status.Subdomain, HealthStatus: status.HealthStatus,
			LastHealthCheck: newest(nil, status.LastHealthCheck),
		}, nil
	}
	d, err := s.load(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &deployv1.GetDeploymentStatusResponse{
		Id: d.GetId(), Status: d.GetStatus(), Subdomain: d.GetSubdomain(), HealthStatus: d.GetHealthStatus(),
		LastHealthCheck: millis(d.GetLastHealthCheck()),
	}, nil
}

func (s *deployServer) ListDeploymentLogs(ctx context.Context, req *deployv1.ListDeploymentLogsRequest) (*deployv1.ListDeploymentLogsResponse, error) {
	id, err := deploymentID(req.GetId())
	if err != nil {
		return nil, err
	}
	ctx, cancel := outgoing(ctx)
	defer cancel()
	logs, err := s.scheduler.ListLogs(ctx, &schedulerv1.ListLogsRequest{Principal: authn.Principal(ctx), Id: id})
	if err != nil {
		return nil, s.failed(ctx, "read the audit log", err)
	}
	res := &deployv1.ListDeploymentLogsResponse{}
	for _, e := range logs.GetLogs() {
		res.Logs = append(res.Logs, logEntry(e))
	}
	return res, nil
}

func (s *deployServer) RestartDeployment(ctx context.Context, req *deployv1.RestartDeploymentRequest) (*deployv1.RestartDeploymentResponse, error) {
	id, err := deploymentID(req.GetId())
	if err != nil {
		return nil, err
	}
	ctx, cancel := outgoing(ctx)
	defer cancel()
	res, err := s.scheduler.RestartDeployment(ctx, &schedulerv1.RestartDeploymentRequest{Principal: authn.Principal(ctx), Id: id})
	if err != nil {
		return nil, s.failed(ctx, "restart a deployment", err)
	}
	return &deployv1.RestartDeploymentResponse{Deployment: s.written(res.GetDeployment())}, nil
}

func (s *deployServer) StopDeployment(ctx context.Context, req *deployv1.StopDeploymentRequest) (*deployv1.StopDeploymentResponse, error) {
	id, err := deploymentID(req.GetId())
	if err != nil {
		return nil, err
	}
	ctx, cancel := outgoing(ctx)
	defer cancel()
	res, err := s.scheduler.StopDeployment(ctx, &schedulerv1.StopDeploymentRequest{Principal: authn.Principal(ctx), Id: id})
	if err != nil {
		return nil, s.failed(ctx, "stop a deployment", err)
	}
	return &deployv1.StopDeploymentResponse{Deployment: s.written(res.GetDeployment())}, nil
}

func (s *deployServer) DestroyDeployment(ctx context.Context, req *deployv1.DestroyDeploymentRequest) (*deployv1.DestroyDeploymentResponse, error) {
	id, err := deploymentID(req.GetId())
	if err != nil {
		return nil, err
	}
	ctx, cancel := outgoing(ctx)
	defer cancel()
	res, err := s.scheduler.DestroyDeployment(ctx, &schedulerv1.DestroyDeploymentRequest{Principal: authn.Principal(ctx), Id: id})
	if err != nil {
		return nil, s.failed(ctx, "destroy a deployment", err)
	}
	s.written(res.GetDeployment())
	return &deployv1.DestroyDeploymentResponse{Message: "Deployment destroyed", Id: id}, nil
}

// written remembers how far the log was after the caller's own command.
func (s *deployServer) written(d *schedulerv1.Deployment) *deployv1.Deployment {
	s.view.Wrote(d.GetId(), d.GetSequence())
	return s.shown(d)
}

func (s *deployServer) shown(d *schedulerv1.Deployment) *deployv1.Deployment {
	return deployment(d, s.view.LastCheck(d.GetId()))
}

// status is what the view knows of a deployment of the caller's organization; nil without an
// error when its owner must be asked. Errors: 403, 404.
func (s *deployServer) status(ctx context.Context, p *identityv1.Principal, id string) (*statusview.Status, error) {
	id, err := deploymentID(id)
	if err != nil {
		return nil, err
	}
	status, err := s.view.Get(ctx, id)
	switch {
	case errors.Is(err, statusview.ErrBehind):
		return nil, nil
	case err != nil:
		return nil, problem.From(err)
	case status == nil:
		return nil, nil
	case status.OrgID != p.GetOrgId():
		return nil, problem.Forbidden("Deployment belongs to another operator.")
	}
	return status, nil
}

func (s *deployServer) load(ctx context.Context, id string) (*schedulerv1.Deployment, error) {
	id, err := deploymentID(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := outgoing(ctx)
	defer cancel()
	res, err := s.scheduler.GetDeployment(ctx, &schedulerv1.GetDeploymentRequest{Principal: authn.Principal(ctx), Id: id})
	if err != nil {
		return nil, s.failed(ctx, "get a deployment", err)
	}
	return res.GetDeployment(), nil
}

// owned is the stream of events of the caller's own deployment.
func (s *deployServer) owned(ctx context.Context, id string) (subjects.Aggregate, error) {
	status, err := s.status(ctx, authn.Principal(ctx), id)
	if err != nil {
		return subjects.Aggregate{}, err
	}
	if status != nil {
		return subjects.Of(status.OrgID, subjects.Deployment, status.ID), nil
	}
	d, err := s.load(ctx, id)
	if err != nil {
		return subjects.Aggregate{}, err
	}
	return subjects.Of(d.GetOrgId(), subjects.Deployment, d.GetId()), nil
}

// failed makes what another service answered the caller's problem, and logs what
// is our own fault.
func (s *deployServer) failed(ctx context.Context, doing string, err error) error {
	p := problem.From(err)
	if p.Status >= http.StatusInternalServerError {
		s.log.ErrorContext(ctx, "could not "+doing, "error", err)
	}
	return p
}

// deploymentID accepts UUIDs as the API writes them; nothing else is anybody's.
func deploymentID(id string) (string, error) {
	if len(id) != 36 || uuid.Validate(id) != nil {
		return "", problem.NotFound("Deployment not found; GET /api/deploy/apps lists yours.")
	}
	return strings.ToLower(id), nil
}

// outgoing bounds calls to other services and tells them which request they serve.
func outgoing(ctx context.Context) (context.Context, context.CancelFunc) {
	return outgoingWithin(ctx, callTimeout)
}

func outgoingWithin(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if id := requestID(ctx); id != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", id)
	}
	return context.WithTimeout(ctx, limit)
}

// FollowDeploymentEvents implements deployv1.DeployServiceServer.
func (s *deployServer) FollowDeploymentEvents(req *deployv1.FollowDeploymentEventsRequest, stream deployv1.DeployService_FollowDeploymentEventsServer) error {
	ctx := stream.Context()
	aggregate, err := s.owned(ctx, req.GetId())
	if err != nil {
		return err
	}
	err = s.streams.Follow(ctx, authn.Principal(ctx).GetOperatorId(), cloudevents.OneDeployment(aggregate), req.GetAfterSequence(), grpcSink{stream})
	switch {
	case errors.Is(err, events.ErrClosing):
		return problem.Unavailable("Slipway is restarting; follow again from your last sequence.", time.Second)
	case err != nil && ctx.Err() == nil:
		return s.failed(ctx, "follow a deployment's events", err)
	}
	return nil
}

type grpcSink struct {
	stream deployv1.DeployService_FollowDeploymentEventsServer
}

func (g grpcSink) Begin() error { return g.stream.SendHeader(nil) }

// CaughtUp has nothing to do: the schema has no word for it.
func (g grpcSink) CaughtUp() error { return nil }

// Beat has nothing to do: HTTP/2 has its own pings.
func (g grpcSink) Beat() error { return nil }

func (g grpcSink) Send(e cloudevents.Event) error {
	data, err := e.Struct()
	if err != nil {
		return err
	}
	return g.stream.Send(&deployv1.FollowDeploymentEventsResponse{
		Sequence: e.Sequence, Id: e.ID, Type: e.Type, Source: e.Source, Subject: e.Subject,
		Time: timestamppb.New(e.Time), Actor: e.Actor, Data: data,
	})
}
