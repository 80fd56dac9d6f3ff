package scheduler

import (
	"context"

	"google.golang.org/protobuf/proto"

	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

func (s server) ConfigureIngress(ctx context.Context, in *schedulerv1.ConfigureIngressRequest) (*schedulerv1.ConfigureIngressResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	c := deployment.ConfigureIngress{By: in.Principal.AppId}
	if v := in.Maintenance; v != nil {
		c.Maintenance = &v.Value
	}
	if v := in.MaxRequestBytes; v != nil {
		c.MaxRequestBytes = &v.Value
	}
	if v := in.RequestTimeoutSeconds; v != nil {
		c.RequestTimeoutSeconds = &v.Value
	}
	if v := in.Sticky; v != nil {
		c.Sticky = &v.Value
	}
	if v := in.DrainSeconds; v != nil {
		c.DrainSeconds = &v.Value
	}
	if v := in.Compression; v != nil {
		c.Compression = &v.Value
	}
	state, err := s.command(ctx, in.Principal, in.Id, c)
	s.figures.Decided("ConfigureIngress", err)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &schedulerv1.ConfigureIngressResponse{Policy: ingressOf(state), Sequence: state.Sequence}, nil
}

func (s server) GetIngress(ctx context.Context, in *schedulerv1.GetIngressRequest) (*schedulerv1.GetIngressResponse, error) {
	if err := checkPrincipal(in.Principal); err != nil {
		return nil, err
	}
	state, err := s.find(ctx, in.Principal, in.Id)
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &schedulerv1.GetIngressResponse{Policy: ingressOf(state)}, nil
}

func ingressOf(s deployment.State) *routingv1.RoutePolicy {
	if s.Ingress == nil {
		return &routingv1.RoutePolicy{}
	}
	return proto.CloneOf(s.Ingress)
}
