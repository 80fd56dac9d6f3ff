package edge_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func TestTwoEdgesOrderEachNameOnce(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	one, two := c.acmeEdge(ca, "127.0.0.1", "--edge-id", "one"), c.acmeEdge(ca, "127.0.0.2", "--edge-id", "two")
	upstream := addressOf(app(t, "x"))
	const names = 10
	var last uint64
	for i := range names {
		host := fmt.Sprintf("n%d.test", i)
		// The CA asks either edge, whichever of them it was that ordered.
		ca.record("add-a", map[string]any{"host": host + ".", "addresses": []string{fmt.Sprintf("127.0.0.%d", 1+i%2)}})
		last = c.put(serving(host, upstream))
	}
	for _, id := range []string{"one", "two"} {
		c.heard(id+" has all routes", func(a *routingv1.EdgeApplied) bool { return a.GetEdgeId() == id && a.GetRevision() >= last })
	}
	var visitors sync.WaitGroup
	for i := range names {
		for _, e := range []*edgeProcess{one, two} {
			visitors.Go(func() {
				if _, err := e.securesInTime(ca, fmt.Sprintf("n%d.test", i)); err != nil {
					t.Errorf("n%d at %s: %v", i, e.https, err)
				}
			})
		}
	}
	visitors.Wait()
	for i := range names {
		host := fmt.Sprintf("n%d.test", i)
		if a, b := one.secures(ca, host), two.secures(ca, host); !a.Equal(b) {
			t.Errorf("%s: the edges have different certificates", host)
		}
	}
	if n := ca.orders.Load(); n != names {
		t.Errorf("%d orders were made for %d names", n, names)
	}
}

func TestWhenTheEdgeThatHasTheLockIsKilledTheOtherGoesOn(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	one := c.acmeEdge(ca, "127.0.0.1", "--edge-id", "one")
	ca.record("add-a", map[string]any{"host": "shop.test.", "addresses": []string{"127.0.0.2"}})
	ca.hang()
	c.applied(c.put(serving("shop.test", addressOf(app(t, "x")))))
	eventually(t, "the first edge orders", func() bool { return ca.orders.Load() == 1 })
	two := c.acmeEdge(ca, "127.0.0.2", "--edge-id", "two")
	if err := one.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ca.accept()
	report := c.reported("the other edge has the certificate", func(r *edgev1.CertificateReport) bool { return r.GetName() == "shop.test" })
	if report.GetEdgeId() != "two" || report.GetError() != "" {
		t.Errorf("the report says %v", report)
	}
	two.secures(ca, "shop.test")
}

func TestAnEdgeServesItsCertificatesWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	dir := t.TempDir()
	plain, https := "127.0.0.1:"+ca.httpPort, "127.0.0.1:"+ca.tlsPort
	e := c.edgeAt(plain, https, dir, ca.flags()...)
	c.put(serving("never.test", addressOf(app(t, "x"))))
	c.applied(c.put(serving("shop.test", addressOf(app(t, "shop")))))
	cert := e.secures(ca, "shop.test")
	e.secures(ca, "never.test")
	c.stop()
	if !e.secures(ca, "shop.test").Equal(cert) {
		t.Error("another certificate with NATS away")
	}
	if code := e.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	again := c.edgeAt(plain, https, dir, ca.flags()...)
	if !again.secures(ca, "shop.test").Equal(cert) {
		t.Error("another certificate after a restart with NATS away")
	}
	c.start()
	c.applied(c.put(serving("late.test", addressOf(app(t, "late")))))
	again.secures(ca, "late.test")
	if n := ca.orders.Load(); n != 3 {
		t.Errorf("%d orders were made", n)
	}
}

func TestAnEdgeWithAnotherKeyDoesNotStart(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	c.acmeEdge(ca, "127.0.0.1")
	eventually(t, "the first edge has left its mark", func() bool {
		bucket, err := c.js().KeyValue(t.Context(), subjects.BucketCertificates)
		if err != nil {
			return false
		}
		_, err = bucket.Get(t.Context(), subjects.CertificateKey("slipway/check"))
		return err == nil
	})
	other := c.begin("127.0.0.2:"+ca.httpPort, "127.0.0.2:"+ca.tlsPort, t.TempDir(), ca.flags("--certificate-key", filepath.Join(t.TempDir(), "other.key"))...)
	if code := other.exitCode(); code != 1 || !strings.Contains(other.log.String(), "--certificate-key") {
		t.Errorf("exit code %d:\n%s", code, other.log)
	}
}

func TestOneWildcardCoversThePlatformsNames(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	asked := c.answersChallenges(ca)
	e := c.acmeEdge(ca, "127.0.0.1", "--base-domain", "apps.test", "--wildcard")
	upstream := addressOf(app(t, "x"))
	for i := range 5 {
		c.put(serving(fmt.Sprintf("n%d.apps.test", i), upstream))
	}
	c.applied(c.put(serving("deep.n.apps.test", upstream)))
	for i := range 5 {
		if cert := e.secures(ca, fmt.Sprintf("n%d.apps.test", i)); cert.DNSNames[0] != "*.apps.test" {
			t.Errorf("n%d has a certificate for %v", i, cert.DNSNames)
		}
	}
	if cert := e.secures(ca, "deep.n.apps.test"); cert.DNSNames[0] != "deep.n.apps.test" {
		t.Errorf("a name two labels down has a certificate for %v", cert.DNSNames)
	}
	if _, err := e.trusted(ca, "nobody.apps.test"); err == nil {
		t.Error("a name that nobody has is covered")
	}
	if orders, records := ca.orders.Load(), asked.Load(); orders != 2 || records != 1 {
		t.Errorf("%d orders, %d records", orders, records)
	}
}

func TestWithoutADNSServiceTheWildcardIsReportedMissing(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	e := c.acmeEdge(ca, "127.0.0.1", "--base-domain", "apps.test", "--wildcard")
	c.applied(c.put(serving("a.apps.test", addressOf(app(t, "x")))))
	report := c.reported("what is missing", func(r *edgev1.CertificateReport) bool { return r.GetError() != "" })
	if report.GetName() != "*.apps.test" || !strings.Contains(report.GetError(), "no dns service runs") || !report.GetRetryAt().IsValid() {
		t.Errorf("the report says %v", report)
	}
	c.answersChallenges(ca)
	eventually(t, "the wildcard is had", func() bool {
		_, err := e.trusted(ca, "a.apps.test")
		return err == nil
	})
}

func TestEachWayOfValidationIsEnough(t *testing.T) {
	t.Parallel()
	for name, offered := range map[string]func(ca *authority) (http, https string){
		"HTTP-01":     func(ca *authority) (string, string) { return ca.httpPort, "" },
		"TLS-ALPN-01": func(ca *authority) (string, string) { return "", ca.tlsPort },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newAuthority(t, "PEBBLE_WFE_NONCEREJECT=30")
			c := newControl(t)
			plain, https := freeAddress(t), freeAddress(t)
			if p, s := offered(ca); p != "" {
				plain = "127.0.0.1:" + p
			} else {
				https = "127.0.0.1:" + s
			}
			e := c.edgeAt(plain, https, t.TempDir(), ca.flags()...)
			c.applied(c.put(serving("shop.test", addressOf(app(t, "x")))))
			eventually(t, "the certificate is had", func() bool {
				_, err := e.trusted(ca, "shop.test")
				return err == nil
			})
		})
	}
}

func TestAHostThatWentHasNoCertificateAndHasItAgain(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	e := c.acmeEdge(ca, "127.0.0.1")
	route := serving("shop.test", addressOf(app(t, "x")))
	c.applied(c.put(route))
	first := e.secures(ca, "shop.test")
	removed := c.remove("shop.test")
	c.applied(removed)
	if _, err := e.trusted(ca, "shop.test"); err == nil {
		t.Error("a host that went is still secured")
	}
	c.applied(c.put(route))
	if !e.secures(ca, "shop.test").Equal(first) {
		t.Error("it was ordered again")
	}
	if n := ca.orders.Load(); n != 1 {
		t.Errorf("%d orders were made", n)
	}
}

func TestFiftyNewNamesAreSecuredAtOnce(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	e := c.acmeEdge(ca, "127.0.0.1")
	// How fast is the bench's to say, on a machine with nothing else to do.
	t.Logf("the last of 50 visitors waited %s", firstHandshakes(t, c, ca, e, 50, "n"))
	if n := ca.orders.Load(); n != 50 {
		t.Errorf("%d orders were made", n)
	}
}

// firstHandshakes puts so many new names in the table and visits all of them at once, at
// once. It returns how long the last visitor waited.
func firstHandshakes(t testing.TB, c *control, ca *authority, e *edgeProcess, names int, prefix string) time.Duration {
	t.Helper()
	upstream := addressOf(app(t, "x"))
	var last uint64
	began := time.Now()
	for i := range names {
		last = c.put(serving(fmt.Sprintf("%s%d.test", prefix, i), upstream))
	}
	c.applied(last)
	var visitors sync.WaitGroup
	for i := range names {
		visitors.Go(func() {
			if _, err := e.securesInTime(ca, fmt.Sprintf("%s%d.test", prefix, i)); err != nil {
				t.Errorf("%s%d: %v", prefix, i, err)
			}
		})
	}
	visitors.Wait()
	return time.Since(began)
}
