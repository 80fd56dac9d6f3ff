package dns_test

import (
	"errors"
	"testing"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

func TestATunnelIsMadeWithItsRoutesAndGoesWithThem(t *testing.T) {
	t.Parallel()
	w := begin(t, config())
	w.sees(t, "example.test", base)
	w.added(t, "acme", "d1", "www.acme.test")
	made, err := w.client.CreateTunnel(t.Context(), &dnsv1.CreateTunnelRequest{Name: "home"})
	if err != nil {
		t.Fatal(err)
	}
	tunnel := made.GetTunnel()
	if tunnel.GetStatus() != "ready" || tunnel.GetTunnelId() == "" || tunnel.GetService() != "http://127.0.0.1:8000" {
		t.Fatalf("made: %v", tunnel)
	}
	target := zone.TunnelTarget(tunnel.GetTunnelId())
	w.sees(t, "example.test", "*.apps.example.test CNAME "+target+"\napps.example.test CNAME "+target)
	w.sees(t, "acme.test", "www.acme.test CNAME "+target)
	eventually(t, "its rules have the custom domain too", func() bool {
		rules, err := w.provider.As("ours").Ingress(t.Context(), tunnel.GetTunnelId())
		return err == nil && len(rules) == 4 && rules[2].Hostname == "www.acme.test" && rules[3] == zone.Rule{Service: zone.NotFound}
	})
	again, err := w.client.CreateTunnel(t.Context(), &dnsv1.CreateTunnelRequest{Name: "home"})
	if err != nil || again.GetTunnel().GetTunnelId() != tunnel.GetTunnelId() {
		t.Errorf("made again: %v, %v", again, err)
	}
	token, err := w.client.RevealTunnelToken(t.Context(), &dnsv1.RevealTunnelTokenRequest{Name: "home"})
	if err != nil || token.GetToken() != "token-"+tunnel.GetTunnelId() {
		t.Errorf("its token: %v, %v", token, err)
	}
	gone, err := w.client.DeleteTunnel(t.Context(), &dnsv1.DeleteTunnelRequest{Name: "home"})
	if err != nil || gone.GetMessage() != "Deleted" {
		t.Fatalf("deleted: %v, %v", gone, err)
	}
	w.sees(t, "example.test", base)
	if _, err := w.provider.As("ours").Tunnel(t.Context(), "home"); !errors.Is(err, zone.ErrGone) {
		t.Errorf("it is still there: %v", err)
	}
	for _, name := range []string{"home", "", "..", "a b"} {
		if _, err := w.client.DeleteTunnel(t.Context(), &dnsv1.DeleteTunnelRequest{Name: name}); problem.From(err).Status != 404 {
			t.Errorf("delete %q: %v", name, err)
		}
	}
	for _, in := range []*dnsv1.CreateTunnelRequest{
		{Name: "UP"}, {Name: "x", Hostnames: []string{"www.elsewhere.invalid"}}, {Name: "x", Service: "ftp://x"},
		{Name: "x", Hostnames: []string{"a.example.test", "A.example.test"}}, {Name: "x", Hostnames: make([]string, 51)},
	} {
		if _, err := w.client.CreateTunnel(t.Context(), in); problem.From(err).Status != 422 {
			t.Errorf("%v: %v", in, err)
		}
	}
}

func TestATunnelIsMadeThroughFailuresOnce(t *testing.T) {
	t.Parallel()
	w := begin(t, config())
	w.sees(t, "example.test", base)
	var calls int
	w.provider.Fail(func(string) (error, error) {
		if calls++; calls%2 == 0 {
			return nil, zone.ErrUnavailable // done, and the answer lost
		}
		return zone.ErrUnavailable, nil
	})
	if _, err := w.client.CreateTunnel(t.Context(), &dnsv1.CreateTunnelRequest{Name: "home"}); err != nil {
		t.Fatal(err)
	}
	w.provider.Fail(nil)
	if _, err := w.client.SyncDNS(t.Context(), &dnsv1.SyncDNSRequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready", func() bool {
		all, err := w.client.ListTunnels(t.Context(), &dnsv1.ListTunnelsRequest{})
		return err == nil && len(all.GetTunnels()) == 1 && all.GetTunnels()[0].GetStatus() == "ready"
	})
}
