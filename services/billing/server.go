package billing

import (
	"context"
	"fmt"

	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/billing/tier"
)

// ListTiers answers all tiers, in configured order.
func (s *Service) ListTiers(context.Context, *billingv1.ListTiersRequest) (*billingv1.ListTiersResponse, error) {
	res := &billingv1.ListTiersResponse{}
	for _, t := range s.catalog.All() {
		res.Tiers = append(res.Tiers, message(t))
	}
	return res, nil
}

// GetTier answers one tier, or NOT_FOUND.
func (s *Service) GetTier(_ context.Context, req *billingv1.GetTierRequest) (*billingv1.GetTierResponse, error) {
	t, ok := s.catalog.Find(req.GetSlug())
	if !ok {
		return nil, problem.NotFound(fmt.Sprintf("There is no tier %.64q; GET /api/deploy/tiers lists those there are.", req.GetSlug()))
	}
	return &billingv1.GetTierResponse{Tier: message(t)}, nil
}

func message(t tier.Tier) *billingv1.Tier {
	return &billingv1.Tier{
		Id: t.ID(), Name: t.Name, Slug: t.Slug, PaymentMethod: t.PaymentMethod,
		MonthlyCostPoints: t.MonthlyCostPoints, MonthlyCostSats: t.MonthlyCostSats,
		MemoryLimitMb: t.MemoryLimitMB, CpuLimitMillicores: t.CPULimitMillicores,
		CustomDomainAllowed: t.CustomDomainAllowed, MonthlyStipendPoints: t.MonthlyStipendPoints,
		AdReachMultiplier: t.AdReachMultiplier, MaxDeployments: t.MaxDeployments,
	}
}
