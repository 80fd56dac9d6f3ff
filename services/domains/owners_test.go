package domains_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

func TestAnotherOrgTakesANameOverWithItsProofAndOnlyWithThat(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		w.app("other", "store", "")
		w.dns.set(func(d *dns) { d.alias[name] = "edge.test" })
		w.add("acme", "shop", name)
		time.Sleep(time.Second)
		first := w.is("acme", "shop", "verified", "")
		newcomer := w.add("other", "store", name)
		if txt := record(newcomer, "TXT"); newcomer.GetStatus() != "pending" || !txt.GetRequired() || txt.GetValue() == record(first, "TXT").GetValue() {
			t.Errorf("the newcomer's is %v", newcomer)
		}
		w.dns.set(func(d *dns) { d.alias[name] = "store.apps.test" })
		w.verify("other", "store", false, "another organization has proved")
		w.is("other", "store", "pending", domain.ProofMissing)
		w.is("acme", "shop", "verified", "")
		// The proof is each one's own.
		w.dns.set(func(d *dns) { d.texts[name] = record(first, "TXT").GetValue() })
		w.verify("other", "store", false, "another organization has proved")
		w.dns.set(func(d *dns) { d.texts[name] = record(newcomer, "TXT").GetValue() })
		w.verify("other", "store", true, "verified")
		w.is("other", "store", "verified", "")
		if left := w.list("acme", "shop"); len(left) != 0 || w.holder() != "domain/"+newcomer.GetId() {
			t.Errorf("the former owner has %v, the owner is %s", left, w.holder())
		}
		events, err := w.store.Load(t.Context(), subjects.Of("acme", subjects.Domain, first.GetId()), 0)
		if err != nil {
			t.Fatal(err)
		}
		if lost, ok := events[len(events)-1].Payload.(*domainv1.DomainLost); !ok || !strings.Contains(lost.GetReason(), "another organization") {
			t.Errorf("the former owner is told %v", events[len(events)-1].Payload)
		}
		// It may prove it again.
		back := w.add("acme", "shop", name)
		w.dns.set(func(d *dns) { d.texts[name] = record(back, "TXT").GetValue() })
		w.verify("acme", "shop", true, "verified")
		if left := w.list("other", "store"); len(left) != 0 {
			t.Errorf("the newcomer still has %v", left)
		}
	})
}

func TestWhereTwoWantANameThatLeadsToTheEdgeNobodyIsBelievedWithoutMore(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		w.app("other", "store", "")
		w.add("acme", "shop", name)
		w.add("other", "store", name)
		w.dns.set(func(d *dns) { d.alias[name] = "edge.test" })
		w.verify("acme", "shop", false, "another organization has added it too")
		w.verify("other", "store", false, "another organization has added it too")
		if w.holder() != "" {
			t.Error("somebody owns it")
		}
		w.dns.set(func(d *dns) { d.alias[name] = "store.apps.test" })
		w.verify("acme", "shop", false, "another app's host")
		w.verify("other", "store", true, "verified")
	})
}

func TestOfTwoWhoAreFoundGoodAtOnceOneHasTheName(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		w.app("other", "store", "")
		w.add("acme", "shop", name)
		w.add("other", "store", name)
		synctest.Wait()
		w.dns.set(func(d *dns) {
			d.alias[name] = "store.apps.test shop.apps.test"
			d.during = func() { w.verify("other", "store", true, "verified") }
		})
		if _, err := w.api.VerifyDomain(w.as("acme"), &domainv1.VerifyDomainRequest{Id: "shop", Domain: name}); err != nil {
			t.Fatal(err)
		}
		won := w.is("other", "store", "verified", "")
		if w.holder() != "domain/"+won.GetId() || w.only("acme", "shop").GetStatus() != "pending" {
			t.Errorf("the owner is %s, the other's is %v", w.holder(), w.only("acme", "shop"))
		}
		time.Sleep(time.Minute)
		w.is("acme", "shop", "pending", domain.ProofMissing)
	})
}
