package billing_test

import (
	"context"
	"net/http"
	"testing"

	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/billing"
	"github.com/slipway-paas/slipway/services/billing/tier"
)

func TestTiersAreAnsweredAsConfigured(t *testing.T) {
	t.Parallel()
	free := uint32(0)
	s, err := billing.New(billing.Config{Tiers: []tier.Tier{{
		Name: "Free", Slug: "free", PaymentMethod: tier.Points, MonthlyCostPoints: &free,
		MemoryLimitMB: 64, CPULimitMillicores: 100, MaxDeployments: 2,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	res, err := s.ListTiers(t.Context(), &billingv1.ListTiersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Tiers) != 1 {
		t.Fatalf("%d tiers, want the one configured", len(res.Tiers))
	}
	got := res.Tiers[0]
	if got.MonthlyCostPoints == nil || *got.MonthlyCostPoints != 0 || got.MonthlyCostSats != nil || got.MaxDeployments != 2 {
		t.Errorf("got %v: a price of 0 is a price, and an absent one is absent", got)
	}
	one, err := s.GetTier(t.Context(), &billingv1.GetTierRequest{Slug: "free"})
	if err != nil || one.GetTier().GetId() != got.GetId() {
		t.Errorf("got %v, %v, want the listed tier", one, err)
	}
	if _, err := s.GetTier(t.Context(), &billingv1.GetTierRequest{Slug: "buddo-pro"}); problem.From(err).Status != http.StatusNotFound {
		t.Errorf("got %v, want not found", err)
	}
}

func TestWithoutConfigurationTheDefaultsHold(t *testing.T) {
	t.Parallel()
	s, err := billing.New(billing.Config{})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.ListTiers(t.Context(), nil)
	if err != nil || len(res.Tiers) != 4 {
		t.Errorf("got %v, %v, want the four default tiers", res, err)
	}
	if _, err := billing.New(billing.Config{Tiers: []tier.Tier{{}}}); err == nil {
		t.Error("a tier without anything was accepted")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s, err := billing.New(billing.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("a clean stop returned %v", err)
	}
}
