package gateway

import (
	"context"
	"log/slog"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
)

// domainServer passes on what is done with custom domains.
type domainServer struct {
	domainv1.UnimplementedDomainServiceServer
	domains domainv1.DomainServiceClient
	log     *slog.Logger
}

func (s *domainServer) ListDomains(ctx context.Context, in *domainv1.ListDomainsRequest) (*domainv1.ListDomainsResponse, error) {
	return relay(ctx, s.log, "list domains", s.domains.ListDomains, in)
}

func (s *domainServer) AddDomain(ctx context.Context, in *domainv1.AddDomainRequest) (*domainv1.AddDomainResponse, error) {
	return relay(ctx, s.log, "add a domain", s.domains.AddDomain, in)
}

func (s *domainServer) RemoveDomain(ctx context.Context, in *domainv1.RemoveDomainRequest) (*domainv1.RemoveDomainResponse, error) {
	return relay(ctx, s.log, "remove a domain", s.domains.RemoveDomain, in)
}

func (s *domainServer) VerifyDomain(ctx context.Context, in *domainv1.VerifyDomainRequest) (*domainv1.VerifyDomainResponse, error) {
	return relay(ctx, s.log, "verify a domain", s.domains.VerifyDomain, in)
}

func (s *domainServer) SetPrimaryDomain(ctx context.Context, in *domainv1.SetPrimaryDomainRequest) (*domainv1.SetPrimaryDomainResponse, error) {
	return relay(ctx, s.log, "set a primary domain", s.domains.SetPrimaryDomain, in)
}
