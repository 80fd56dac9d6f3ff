package gateway

import (
	"context"
	"log/slog"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
)

// dnsServer passes on what those who run the platform do with zones and tunnels.
type dnsServer struct {
	dnsv1.UnimplementedDNSAdminServiceServer
	dns dnsv1.DNSAdminServiceClient
	log *slog.Logger
}

func (s *dnsServer) GetDNS(ctx context.Context, in *dnsv1.GetDNSRequest) (*dnsv1.GetDNSResponse, error) {
	return relay(ctx, s.log, "look at DNS", s.dns.GetDNS, in)
}

func (s *dnsServer) SyncDNS(ctx context.Context, in *dnsv1.SyncDNSRequest) (*dnsv1.SyncDNSResponse, error) {
	return relay(ctx, s.log, "compare DNS", s.dns.SyncDNS, in)
}

func (s *dnsServer) ListTunnels(ctx context.Context, in *dnsv1.ListTunnelsRequest) (*dnsv1.ListTunnelsResponse, error) {
	return relay(ctx, s.log, "list tunnels", s.dns.ListTunnels, in)
}

func (s *dnsServer) CreateTunnel(ctx context.Context, in *dnsv1.CreateTunnelRequest) (*dnsv1.CreateTunnelResponse, error) {
	return relay(ctx, s.log, "create a tunnel", s.dns.CreateTunnel, in)
}

func (s *dnsServer) DeleteTunnel(ctx context.Context, in *dnsv1.DeleteTunnelRequest) (*dnsv1.DeleteTunnelResponse, error) {
	return relay(ctx, s.log, "delete a tunnel", s.dns.DeleteTunnel, in)
}

func (s *dnsServer) RevealTunnelToken(ctx context.Context, in *dnsv1.RevealTunnelTokenRequest) (*dnsv1.RevealTunnelTokenResponse, error) {
	return relay(ctx, s.log, "show a tunnel's token", s.dns.RevealTunnelToken, in)
}
