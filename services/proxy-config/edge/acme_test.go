package edge_test

import (
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

func TestACertificateIsHadBeforeTheFirstVisitor(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	e := c.acmeEdge(ca, "127.0.0.1", "--edge-id", "edge-one")
	c.applied(c.put(serving("shop.test", addressOf(app(t, "shop")))))

	report := c.reported("the certificate", func(r *edgev1.CertificateReport) bool { return r.GetName() == "shop.test" })
	if report.GetError() != "" || report.GetEdgeId() != "edge-one" || report.GetIssuer() != ca.directory || report.GetRenewal() || !report.GetNotAfter().IsValid() {
		t.Fatalf("the report says %v", report)
	}
	began := time.Now()
	cert := e.secures(ca, "shop.test")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the first visitor waited %s", took)
	}
	if !cert.NotAfter.Equal(report.GetNotAfter().AsTime()) {
		t.Errorf("the certificate ends %s, the report says %s", cert.NotAfter, report.GetNotAfter().AsTime())
	}
	if log := e.log.String(); strings.Contains(strings.ToLower(log), "permissions violation") {
		t.Errorf("the edge's key may not do what the edge does:\n%s", log)
	}
	if _, err := e.trusted(ca, "nobody.test"); err == nil {
		t.Error("a host that is not in the table has a certificate")
	}
	if n := ca.orders.Load(); n != 1 {
		t.Errorf("%d orders were made", n)
	}
}

func TestOnlyThePlatformsNamesAndVerifiedDomainsGetCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	e := c.acmeEdge(ca, "127.0.0.1", "--base-domain", "apps.test")
	upstream := addressOf(app(t, "x"))
	c.put(serving("elsewhere.test", upstream))
	own := serving("mine.example.test", upstream)
	own.Kind = routingv1.RouteKind_ROUTE_KIND_CUSTOM_DOMAIN
	c.put(own)
	c.applied(c.put(serving("a.apps.test", upstream)))
	e.secures(ca, "a.apps.test")
	e.secures(ca, "mine.example.test")
	if _, err := e.trusted(ca, "elsewhere.test"); err == nil {
		t.Error("a name that is neither under the base domain nor a verified domain has a certificate")
	}
	if n := ca.orders.Load(); n != 2 {
		t.Errorf("%d orders were made", n)
	}
}

func TestACertificateThatEndsSoonIsRenewed(t *testing.T) {
	t.Parallel()
	ca := newAuthorityFor(t, 30*time.Minute) // is always soon
	c := newControl(t)
	c.acmeEdge(ca, "127.0.0.1")
	c.applied(c.put(serving("shop.test", addressOf(app(t, "x")))))
	first := c.reported("the certificate", func(r *edgev1.CertificateReport) bool { return r.GetName() == "shop.test" })
	if first.GetError() != "" || first.GetRenewal() {
		t.Fatalf("the report says %v", first)
	}
	two := c.acmeEdge(ca, "127.0.0.2", "--edge-id", "two")
	renewal := c.reported("the renewal", func(r *edgev1.CertificateReport) bool { return r.GetRenewal() })
	if renewal.GetError() != "" || renewal.GetEdgeId() != "two" || !renewal.GetNotAfter().IsValid() {
		t.Errorf("the report says %v", renewal)
	}
	two.secures(ca, "shop.test")
	if _, metrics := two.metricsPage("/metrics"); !strings.Contains(metrics, `slipway_edge_certificates_total{result="renewed"} 1`) {
		t.Errorf("the figures do not tell:\n%s", metrics)
	}
}

func TestTheEdgesOwnCAReportsCustomDomainsAheadAndOthersWhenVisited(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	dir := t.TempDir()
	e := c.edge(dir, "--edge-id", "one")
	upstream := addressOf(app(t, "x"))
	own := serving("mine.example.test", upstream)
	c.applied(c.put(own))
	own.Kind = routingv1.RouteKind_ROUTE_KIND_CUSTOM_DOMAIN
	c.applied(c.put(own))
	custom := func(r *edgev1.CertificateReport) bool { return r.GetName() == "mine.example.test" }
	if report := c.reported("the domain's certificate", custom); report.GetIssuer() != "internal" || report.GetError() != "" || !report.GetNotAfter().IsValid() {
		t.Errorf("the report says %v", report)
	}
	c.applied(c.put(serving("a.test", upstream)))
	if conn, err := e.dialTLS("a.test"); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
	c.mu.Lock()
	c.reports = nil
	c.mu.Unlock()
	if code := e.terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	// Whoever was away when it was had hears of it again.
	c.edge(dir, "--edge-id", "one")
	c.reported("the domain's certificate again", custom)
}
