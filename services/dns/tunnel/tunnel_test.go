package tunnel_test

import (
	"testing"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/services/dns/tunnel"
)

func TestATunnelsLife(t *testing.T) {
	t.Parallel()
	hosts := []string{"apps.example.com", "*.apps.example.com"}
	request := tunnel.Request{Name: "home", Service: "http://127.0.0.1:8000", Hostnames: hosts, By: "op"}
	requested := &dnsv1.TunnelRequested{Name: "home", Service: "http://127.0.0.1:8000", Hostnames: hosts, RequestedBy: "op"}
	ready := &dnsv1.TunnelReady{TunnelId: "t1", Token: []byte("sealed")}
	deleting := &dnsv1.TunnelDeleteRequested{RequestedBy: "op"}
	begin := func() *gwt.Story[tunnel.State, tunnel.Command] { return gwt.New(t, tunnel.Decider()) }

	begin().When(request).Then(requested)
	begin().When(tunnel.Request{Name: "home"}).ThenErrorIs(tunnel.ErrMalformed)
	begin().When(tunnel.Request{Name: "../home", Service: "x", Hostnames: hosts}).ThenErrorIs(tunnel.ErrMalformed)
	begin().Given(requested).When(request).ThenNothing()
	begin().Given(requested).When(tunnel.Made{TunnelID: "t1", Token: []byte("sealed")}).Then(ready)
	begin().Given(requested).When(tunnel.Made{TunnelID: "t1"}).ThenErrorIs(tunnel.ErrMalformed)
	begin().Given(requested, ready).When(tunnel.Made{TunnelID: "t1", Token: []byte("sealed")}).ThenNothing()
	begin().Given(requested, ready).When(tunnel.Made{TunnelID: "t2", Token: []byte("sealed")}).Then(&dnsv1.TunnelReady{TunnelId: "t2", Token: []byte("sealed")})
	begin().Given(requested).When(tunnel.Fail{Code: "unavailable", Reason: "why"}).Then(&dnsv1.TunnelFailed{Code: "unavailable", Reason: "why"})
	begin().Given(requested, &dnsv1.TunnelFailed{Code: "unavailable"}).When(tunnel.Fail{Code: "unavailable", Reason: "again"}).ThenNothing()
	begin().Given(requested, ready).When(tunnel.Delete{By: "op"}).Then(deleting)
	begin().Given(requested, ready, deleting).When(tunnel.Delete{By: "op"}).ThenNothing()
	begin().Given(requested, ready, deleting).When(request).ThenErrorIs(tunnel.ErrDeleting)
	begin().Given(requested, ready, deleting).When(tunnel.Made{TunnelID: "t3", Token: []byte("x")}).ThenNothing()
	begin().Given(requested, ready, deleting).When(tunnel.Deleted{}).Then(&dnsv1.TunnelDeleted{})
	begin().Given(requested, ready).When(tunnel.Deleted{}).ThenNothing()
	begin().Given(requested, ready, deleting, &dnsv1.TunnelDeleted{}).When(request).Then(requested)
	for _, early := range []tunnel.Command{tunnel.Made{TunnelID: "t", Token: []byte("x")}, tunnel.Fail{Code: "x"}, tunnel.Delete{}, tunnel.Deleted{}} {
		begin().When(early).ThenErrorIs(tunnel.ErrUnknown)
	}
}
