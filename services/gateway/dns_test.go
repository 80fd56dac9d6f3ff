package gateway_test

import (
	"context"
	"strings"
	"testing"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// fakeDNS answers what it was asked for.
type fakeDNS struct {
	dnsv1.UnimplementedDNSAdminServiceServer
}

func (fakeDNS) GetDNS(context.Context, *dnsv1.GetDNSRequest) (*dnsv1.GetDNSResponse, error) {
	return &dnsv1.GetDNSResponse{Provider: "cloudflare", Zones: []*dnsv1.DNSZone{{Name: "example.com", Use: "platform"}}, Wanted: 2, Applied: 1}, nil
}

func (fakeDNS) SyncDNS(context.Context, *dnsv1.SyncDNSRequest) (*dnsv1.SyncDNSResponse, error) {
	return &dnsv1.SyncDNSResponse{Wanted: 2, Applied: 2}, nil
}

func (fakeDNS) ListTunnels(context.Context, *dnsv1.ListTunnelsRequest) (*dnsv1.ListTunnelsResponse, error) {
	return &dnsv1.ListTunnelsResponse{}, nil
}

func (fakeDNS) CreateTunnel(_ context.Context, in *dnsv1.CreateTunnelRequest) (*dnsv1.CreateTunnelResponse, error) {
	return &dnsv1.CreateTunnelResponse{Tunnel: &dnsv1.Tunnel{Name: in.GetName(), Hostnames: in.GetHostnames(), Status: "ready"}}, nil
}

func (fakeDNS) DeleteTunnel(_ context.Context, in *dnsv1.DeleteTunnelRequest) (*dnsv1.DeleteTunnelResponse, error) {
	if in.GetName() != "home" {
		return nil, problem.NotFound("There is no such tunnel.")
	}
	return &dnsv1.DeleteTunnelResponse{Message: "Deleted"}, nil
}

func (fakeDNS) RevealTunnelToken(context.Context, *dnsv1.RevealTunnelTokenRequest) (*dnsv1.RevealTunnelTokenResponse, error) {
	return &dnsv1.RevealTunnelTokenResponse{Token: "secret", Command: "run it"}, nil
}

func TestAdminsKeepZonesAndTunnelsOverREST(t *testing.T) {
	t.Parallel()
	s := begin(t)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/api/v1/admin/dns", "", 200, `"zones":[{"name":"example.com","use":"platform"}],"wanted":2,"applied":1`},
		{"POST", "/api/v1/admin/dns/sync", "", 200, `{"wanted":2,"applied":2,"failed":0,"trouble":""}`},
		{"GET", "/api/v1/admin/dns/tunnels", "", 200, `{"tunnels":[]}`},
		{"POST", "/api/v1/admin/dns/tunnels", `{"name":"home","hostnames":["a.example.com"]}`, 200, `"hostnames":["a.example.com"]`},
		{"POST", "/api/v1/admin/dns/tunnels", `{"nam":"home"}`, 400, `"code":"malformed_request"`},
		{"POST", "/api/v1/admin/dns/tunnels/home/token", "", 200, `{"token":"secret","command":"run it"}`},
		{"DELETE", "/api/v1/admin/dns/tunnels/home", "", 200, `{"message":"Deleted"}`},
		{"DELETE", "/api/v1/admin/dns/tunnels/other", "", 404, `"code":"not_found"`},
	} {
		if got := s.call(t, c.method, c.path, c.body, "Authorization: Bearer "+adminToken); got.status != c.status || !strings.Contains(got.body, c.want) {
			t.Errorf("%s %s: %d %s", c.method, c.path, got.status, got.body)
		}
	}
}
