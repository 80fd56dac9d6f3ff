package domains_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

func TestWhatAnAppIsAskedForWithIsAddedOnceAndGoesWithIt(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", name)
		d := w.is("acme", "shop", "pending", domain.NotFound)
		if !d.GetIsPrimary() {
			t.Errorf("it is not the primary one: %v", d)
		}
		added, err := w.store.Load(t.Context(), subjects.Of("acme", subjects.Domain, d.GetId()), 0)
		if err != nil || added[0].Actor != "the-app" || added[0].Causation == "" {
			t.Errorf("added by %+v, %v", added[0].Event, err)
		}
		w.restart()
		w.dns.set(func(d *dns) { d.alias[name] = "shop.apps.test" })
		w.verify("acme", "shop", true, "verified")
		// Removed, it does not come back.
		if _, err := w.api.RemoveDomain(w.as("acme"), &domainv1.RemoveDomainRequest{Id: "shop", Domain: name}); err != nil {
			t.Fatal(err)
		}
		w.restart()
		if left := w.list("acme", "shop"); len(left) != 0 || w.holder() != "" {
			t.Errorf("left are %v, the owner is %q", left, w.holder())
		}
		w.add("acme", "shop", name)
		w.verify("acme", "shop", true, "verified")
		w.happens(deployment("acme", "shop"), &deploymentv1.DestroyRequested{})
		w.happens(deployment("acme", "shop"), &deploymentv1.DeploymentDestroyed{})
		if w.holder() != "" {
			t.Errorf("destroyed, and %s owns its name", w.holder())
		}
		w.app("acme", "next", "")
		w.add("acme", "next", name)
	})
}

func TestAnAppDestroyedWhileNobodyLookedLosesItsDomains(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		w.dns.set(func(d *dns) { d.alias[name] = "shop.apps.test" })
		w.add("acme", "shop", name)
		w.verify("acme", "shop", true, "")
		w.stop()
		w.happens(deployment("acme", "shop"), &deploymentv1.DestroyRequested{})
		w.start()
		if w.holder() != "" {
			t.Errorf("%s owns the name of an app that is gone", w.holder())
		}
	})
}

func TestADomainOfAnOlderLogGoesOnBeingServed(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.stop()
		w.app("acme", "shop", name)
		book := claims.Book{Store: w.store, Now: time.Now, Source: "scheduler"}
		taken, err := book.Take(t.Context(), "deployment/shop", claims.Name{Kind: claims.CustomDomain, Value: name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.AppendBatch(t.Context(), taken); err != nil {
			t.Fatal(err)
		}
		w.start()
		d := w.is("acme", "shop", "verified", "")
		if w.holder() != "domain/"+d.GetId() || record(d, "TXT").GetRequired() {
			t.Errorf("%v is owned by %s", d, w.holder())
		}
	})
}

func TestAnAppHasOnePrimaryDomain(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "a.example.test")
		w.add("acme", "shop", "b.example.test")
		if _, err := w.api.AddDomain(w.as("acme"), &domainv1.AddDomainRequest{Id: "shop", Domain: "c.example.test", IsPrimary: true}); err != nil {
			t.Fatal(err)
		}
		primary := func() string {
			var all []string
			for _, d := range w.list("acme", "shop") {
				if d.GetIsPrimary() {
					all = append(all, d.GetDomain())
				}
			}
			return strings.Join(all, " ")
		}
		if got := primary(); got != "c.example.test" {
			t.Errorf("primary is %q", got)
		}
		for _, next := range []string{"b.example.test", "b.example.test", "a.example.test"} {
			if _, err := w.api.SetPrimaryDomain(w.as("acme"), &domainv1.SetPrimaryDomainRequest{Id: "shop", Domain: next}); err != nil {
				t.Fatal(err)
			}
			if got := primary(); got != next {
				t.Errorf("primary is %q, wanted %q", got, next)
			}
		}
		w.restart()
		if got := primary(); got != "a.example.test" {
			t.Errorf("after a restart primary is %q", got)
		}
	})
}

func TestBadDomainsAreRefusedWithAllThatIsWrong(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		w.app("acme", "blog", "")
		w.happens(deployment("acme", "small"), &deploymentv1.DeploymentRequested{DeploymentId: "small", OrgId: "acme", Subdomain: "small", Host: "small.apps.test", Tier: &deploymentv1.Tier{}})
		w.refused("acme", "shop", "", "required")
		w.refused("acme", "shop", "no domain", "name alone")
		w.refused("acme", "shop", "*.blog.apps.test", "wildcard", "below apps.test")
		w.refused("acme", "shop", "edge.test", "platform's own")
		w.refused("acme", "shop", "api.example.net", "platform's own")
		w.refused("acme", "small", "co.uk", "suffix", "tier")
		w.add("acme", "shop", name)
		w.refused("acme", "shop", name, "of this app already")
		w.refused("acme", "blog", name, `your app "shop"`)
		for i := range 49 {
			w.add("acme", "shop", fmt.Sprintf("a%d.example.test", i))
		}
		if _, err := w.api.AddDomain(w.as("acme"), &domainv1.AddDomainRequest{Id: "shop", Domain: "one.more.test"}); problem.From(err).Status != 429 {
			t.Errorf("the 51st: %v", err)
		}
	})
}

func TestOthersAppsAndDomainsAreNotThere(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		w.app("other", "store", "")
		w.add("acme", "shop", name)
		calls := map[string]func(ctx context.Context, app, domain string) error{
			"list": func(ctx context.Context, app, _ string) error {
				_, err := w.api.ListDomains(ctx, &domainv1.ListDomainsRequest{Id: app})
				return err
			},
			"add": func(ctx context.Context, app, _ string) error {
				_, err := w.api.AddDomain(ctx, &domainv1.AddDomainRequest{Id: app, Domain: "x.example.test"})
				return err
			},
			"remove": func(ctx context.Context, app, domain string) error {
				_, err := w.api.RemoveDomain(ctx, &domainv1.RemoveDomainRequest{Id: app, Domain: domain})
				return err
			},
			"verify": func(ctx context.Context, app, domain string) error {
				_, err := w.api.VerifyDomain(ctx, &domainv1.VerifyDomainRequest{Id: app, Domain: domain})
				return err
			},
			"primary": func(ctx context.Context, app, domain string) error {
				_, err := w.api.SetPrimaryDomain(ctx, &domainv1.SetPrimaryDomainRequest{Id: app, Domain: domain})
				return err
			},
		}
		for what, call := range calls {
			if err := call(w.as("other"), "shop", name); problem.From(err).Status != 404 {
				t.Errorf("%s of another org's app: %v", what, err)
			}
			if err := call(w.as("acme"), "nothing", name); problem.From(err).Status != 404 {
				t.Errorf("%s of no app: %v", what, err)
			}
			if err := call(t.Context(), "shop", name); problem.From(err).Status != 401 {
				t.Errorf("%s by nobody: %v", what, err)
			}
			if err := call(w.as("_"), "shop", name); problem.From(err).Status != 401 {
				t.Errorf("%s by the platform's org: %v", what, err)
			}
			if what == "list" || what == "add" {
				continue
			}
			if err := call(w.as("other"), "store", name); problem.From(err).Status != 404 {
				t.Errorf("%s of another org's domain: %v", what, err)
			}
		}
		w.is("acme", "shop", "pending", domain.NotFound)
	})
}
