package edge_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/gen/slipway/edge/v1"
)

// failsSoon shakes hands in vain, and reports how long that took.
func (e *edgeProcess) failsSoon(ca *authority, host string) time.Duration {
	e.t.Helper()
	began := time.Now()
	if _, err := e.trusted(ca, host); err == nil {
		e.t.Errorf("%s is secured", host)
	}
	return time.Since(began)
}

func failed(name string) func(*edgev1.CertificateReport) bool {
	return func(r *edgev1.CertificateReport) bool { return r.GetName() == name && r.GetError() != "" }
}

func TestANameThatTheCARefusesIsSaidAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	one := c.acmeEdge(ca, "127.0.0.1", "--acme-retry", "1h")
	upstream := addressOf(app(t, "x"))
	c.applied(c.put(serving("refused.test", upstream)))
	report := c.reported("the refusal", failed("refused.test"))
	if !strings.Contains(report.GetError(), "the CA refused") || time.Until(report.GetRetryAt().AsTime()) < 50*time.Minute {
		t.Errorf("the report says %v", report)
	}
	if took := one.failsSoon(ca, "refused.test"); took > 5*time.Second {
		t.Errorf("a visitor waited %s", took)
	}
	orders := ca.orders.Load()
	// Another edge, or the same one started again, knows of it.
	two := c.acmeEdge(ca, "127.0.0.2", "--acme-retry", "1h")
	if took := two.failsSoon(ca, "refused.test"); took > 5*time.Second {
		t.Errorf("a visitor of the other edge waited %s", took)
	}
	if n := ca.orders.Load(); n != orders {
		t.Errorf("the other edge ordered as well")
	}
	c.applied(c.put(serving("fine.test", upstream)))
	one.secures(ca, "fine.test")
	if got := one.get("fine.test").status; got != 308 {
		t.Errorf("HTTP gives %d", got)
	}
}

func TestWhatTheCASaysOfWaitingIsHeard(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	e := c.acmeEdge(ca, "127.0.0.1")
	ca.refuse(429, "rateLimited", "too many certificates for this name", "Retry-After", "7200")
	upstream := addressOf(app(t, "x"))
	c.applied(c.put(serving("limited.test", upstream)))
	report := c.reported("the limit", failed("limited.test"))
	wait := time.Until(report.GetRetryAt().AsTime())
	if !strings.Contains(report.GetError(), "limits") || !strings.Contains(report.GetError(), "too many certificates") || wait < 119*time.Minute || wait > 2*time.Hour {
		t.Errorf("to be tried again in %s: %v", wait, report)
	}
	if took := e.failsSoon(ca, "limited.test"); took > 5*time.Second {
		t.Errorf("a visitor waited %s", took)
	}
	if n := ca.orders.Load(); n != 1 {
		t.Errorf("it was ordered %d times", n)
	}
}

func TestWhatWasHadIsServedWhileTheCAIsDownAndTheRestComesAfter(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	e := c.acmeEdge(ca, "127.0.0.1")
	upstream := addressOf(app(t, "x"))
	c.applied(c.put(serving("before.test", upstream)))
	e.secures(ca, "before.test")
	ca.refuse(503, "serverInternal", "down for maintenance")
	for _, host := range []string{"a.test", "b.test", "c.test"} {
		c.applied(c.put(serving(host, upstream)))
	}
	report := c.reported("the CA is down", failed("a.test"))
	if !strings.Contains(report.GetError(), "the CA has a fault: down for maintenance") {
		t.Errorf("the report says %v", report)
	}
	e.secures(ca, "before.test")
	ca.accept()
	for _, host := range []string{"a.test", "b.test", "c.test"} {
		eventually(t, host+" is secured when the CA is back", func() bool {
			_, err := e.trusted(ca, host)
			return err == nil
		})
	}
}

func TestAVisitorDoesNotWaitForACAThatHangs(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	e := c.acmeEdge(ca, "127.0.0.1")
	ca.hang()
	c.applied(c.put(serving("shop.test", addressOf(app(t, "x")))))
	if took := e.failsSoon(ca, "shop.test"); took > 14*time.Second {
		t.Errorf("a visitor waited %s", took)
	}
	if got := e.get("shop.test"); got.status != 308 {
		t.Errorf("HTTP gives %d", got.status)
	}
}

func TestACAThatIsNotThereIsReportedAndAskedAgain(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	nowhere := freeAddress(t)
	e := c.acmeEdge(ca, "127.0.0.1", "--acme-directory", "https://"+nowhere+"/dir")
	c.applied(c.put(serving("shop.test", addressOf(app(t, "x")))))
	report := c.reported("nobody is there", failed("shop.test"))
	if !strings.Contains(report.GetError(), "the CA cannot be reached") || !report.GetRetryAt().IsValid() {
		t.Errorf("the report says %v", report)
	}
	_, metrics := e.metricsPage("/metrics")
	if !strings.Contains(metrics, `slipway_edge_certificates_total{result="failed"}`) || !strings.Contains(metrics, `slipway_edge_certificates{state="failing"} 1`) {
		t.Errorf("the figures do not tell:\n%s", metrics)
	}
	if status, _ := e.metricsPage("/ready"); status != 200 {
		t.Errorf("/ready: %d", status)
	}
}

func TestADomainThatLeadsElsewhereIsRefusedAndHadOnceItLeadsHere(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	e := c.acmeEdge(ca, "127.0.0.1")
	ca.record("add-a", map[string]any{"host": "moved.test.", "addresses": []string{"127.0.0.77"}})
	c.applied(c.put(serving("moved.test", addressOf(app(t, "x")))))
	if report := c.reported("the refusal", failed("moved.test")); !strings.Contains(report.GetError(), "127.0.0.77") {
		t.Errorf("the report does not say where the CA looked: %v", report)
	}
	ca.record("clear-a", map[string]any{"host": "moved.test."})
	eventually(t, "the domain is secured", func() bool {
		_, err := e.trusted(ca, "moved.test")
		return err == nil
	})
	_, metrics := e.metricsPage("/metrics")
	for _, line := range []string{
		`slipway_edge_certificates_total{result="obtained"} 1`, `slipway_edge_certificates{state="held"} 1`, "slipway_edge_certificate_soonest_expiry_seconds ",
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

func TestWhatIsStoredIsServedWhileAHangingCAHoldsEveryWorker(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newControl(t)
	shop := serving("shop.test", addressOf(app(t, "x")))
	first := c.acmeEdge(ca, "127.0.0.1")
	c.applied(c.put(shop))
	first.secures(ca, "shop.test")
	if code := first.terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	ca.hang()
	for i := range 100 {
		c.put(serving(fmt.Sprintf("n%d.test", i), "127.0.0.1:1"))
	}
	// It is the last one that a new edge looks after.
	c.put(shop)
	second := c.acmeEdge(ca, "127.0.0.1")
	eventually(t, "every worker waits for the CA", func() bool { return ca.orders.Load() > 32 })
	began := time.Now()
	if _, err := second.trusted(ca, "shop.test"); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a visitor waited %s", took)
	}
}
