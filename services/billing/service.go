// Package billing owns tiers: what they cost and what they allow. It answers
// TierService from its configuration.
package billing

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	"github.com/slipway-paas/slipway/services/billing/tier"
)

// Config is what an operator of the platform can set.
type Config struct {
	// Tiers replaces the default tiers when it is not empty.
	Tiers []tier.Tier `koanf:"tiers"`
}

// Service answers for tiers.
type Service struct {
	billingv1.UnimplementedTierServiceServer
	catalog *tier.Catalog
}

// New checks the tiers and makes the service. It fails with every fault found.
func New(c Config) (*Service, error) {
	tiers := c.Tiers
	if len(tiers) == 0 {
		tiers = tier.Defaults()
	}
	catalog, err := tier.NewCatalog(tiers)
	if err != nil {
		return nil, fmt.Errorf("read the configured tiers: %w", err)
	}
	return &Service{catalog: catalog}, nil
}

// Register puts TierService on a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) { billingv1.RegisterTierServiceServer(r, s) }

// Run has nothing to do in the background: it returns nil when ctx ends.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Ready is always nil: a service that was made can answer.
func (s *Service) Ready() error { return nil }
