package domains_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/caller"
	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains"
	"github.com/slipway-paas/slipway/services/domains/domain"
	"github.com/slipway-paas/slipway/services/domains/proof"
	"github.com/slipway-paas/slipway/services/domains/resolver"
)

const name = "www.example.test"

// dns says what each name is an alias of, one after the other, and which TXT records it has.
type dns struct {
	mu     sync.Mutex
	alias  map[string]string
	texts  map[string]string
	silent bool
	looks  int
	// during is called, once, while a look is under way.
	during func()
}

func (d *dns) Look(_ context.Context, w proof.Wanted) (proof.Answers, error) {
	d.mu.Lock()
	during := d.during
	d.during = nil
	d.mu.Unlock()
	if during != nil {
		during()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looks++
	if d.silent {
		return proof.Answers{}, resolver.ErrUnavailable
	}
	a := proof.Answers{Texts: []string{d.texts[w.Name]}}
	if to := d.alias[w.Name]; to != "" {
		a.Chain = strings.Fields(to)
	} else {
		a.Missing = true
	}
	return a, nil
}

func (d *dns) set(change func(*dns)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *dns) asked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.looks
}

// world is the service on a log in memory, in a bubble of virtual time.
type world struct {
	t     *testing.T
	store *memory.Store
	dns   *dns
	api   domainv1.DomainServiceServer
	run   *domains.Service
	stop  func()
}

// registrar takes the server that a service registers.
type registrar struct{ api domainv1.DomainServiceServer }

func (r *registrar) RegisterService(_ *grpc.ServiceDesc, server any) {
	r.api, _ = server.(domainv1.DomainServiceServer)
}

func story(t *testing.T, tell func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, store: memory.New(), dns: &dns{alias: map[string]string{}, texts: map[string]string{}}}
		w.start()
		defer func() { w.stop() }()
		tell(t, w)
	})
}

func (w *world) start() {
	w.t.Helper()
	c := domains.DefaultConfig()
	c.BaseDomain, c.EdgeName, c.OwnHosts = "apps.test", "edge.test", []string{"api.example.net"}
	s, err := domains.New(c, domains.Deps{Store: w.store, Resolver: w.dns, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	r := &registrar{}
	s.Register(r)
	w.api, w.run = r.api, s
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the service ended with %v", err)
		}
	}
	synctest.Wait()
}

func (w *world) restart() {
	w.stop()
	w.start()
}

func (w *world) happens(a subjects.Aggregate, e proto.Message) {
	w.t.Helper()
	if _, err := w.store.Record(w.t.Context(), eventstore.Event{
		Aggregate: a, ID: fmt.Sprintf("%s-%s-%d", a, e.ProtoReflect().Descriptor().Name(), time.Now().UnixNano()), Payload: e, Time: time.Now(), Actor: "the-app",
	}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func deployment(org, id string) subjects.Aggregate { return subjects.Of(org, subjects.Deployment, id) }

// app is deployed, asked for with a domain or none.
func (w *world) app(org, id, asked string) {
	w.t.Helper()
	w.happens(deployment(org, id), &deploymentv1.DeploymentRequested{
		DeploymentId: id, OrgId: org, Subdomain: id, Host: id + ".apps.test", CustomDomain: asked, Tier: &deploymentv1.Tier{CustomDomainAllowed: true},
	})
}

func (w *world) as(org string) context.Context {
	w.t.Helper()
	out, err := caller.Outgoing(w.t.Context(), &identityv1.Principal{OrgId: org, OperatorId: "op", Role: "owner"})
	if err != nil {
		w.t.Fatal(err)
	}
	md, _ := metadata.FromOutgoingContext(out)
	return metadata.NewIncomingContext(w.t.Context(), md)
}

func (w *world) add(org, app, name string) *domainv1.Domain {
	w.t.Helper()
	added, err := w.api.AddDomain(w.as(org), &domainv1.AddDomainRequest{Id: app, Domain: name})
	if err != nil {
		w.t.Fatalf("add %s: %v", name, err)
	}
	return added.GetDomain()
}

// refused wants that a domain cannot be added, for these reasons.
func (w *world) refused(org, app, name string, why ...string) {
	w.t.Helper()
	_, err := w.api.AddDomain(w.as(org), &domainv1.AddDomainRequest{Id: app, Domain: name})
	p := problem.From(err)
	if err == nil || p.Status != 422 || len(p.Fields) != len(why) {
		w.t.Errorf("add %q: %v, wanted 422 with %q", name, err, why)
		return
	}
	for i, f := range p.Fields {
		if f.Field != "domain" || !strings.Contains(f.Message, why[i]) {
			w.t.Errorf("add %q: %v, wanted %q", name, f, why[i])
		}
	}
}

// only is the app's one domain.
func (w *world) only(org, app string) *domainv1.Domain {
	w.t.Helper()
	synctest.Wait()
	all := w.list(org, app)
	if len(all) != 1 {
		w.t.Fatalf("%s has %d domains, wanted one: %v", app, len(all), all)
	}
	return all[0]
}

func (w *world) list(org, app string) []*domainv1.Domain {
	w.t.Helper()
	res, err := w.api.ListDomains(w.as(org), &domainv1.ListDomainsRequest{Id: app})
	if err != nil {
		w.t.Fatal(err)
	}
	return res.GetDomains()
}

func (w *world) is(org, app, status, code string) *domainv1.Domain {
	w.t.Helper()
	d := w.only(org, app)
	if d.GetStatus() != status || d.GetCode() != code {
		w.t.Errorf("the domain of %s is %s %q (%s), wanted %s %q", app, d.GetStatus(), d.GetCode(), d.GetReason(), status, code)
	}
	return d
}

func (w *world) verify(org, app string, want bool, says string) {
	w.t.Helper()
	res, err := w.api.VerifyDomain(w.as(org), &domainv1.VerifyDomainRequest{Id: app, Domain: name})
	if err != nil || res.GetSuccess() != want || !strings.Contains(res.GetMessage(), says) {
		w.t.Errorf("verify: %v, %v; wanted %v that says %q", res, err, want, says)
	}
}

// holder is who has proved the name.
func (w *world) holder() string {
	w.t.Helper()
	s, err := claims.Book{Store: w.store}.Load(w.t.Context(), claims.Name{Kind: claims.CustomDomain, Value: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Holder
}

// events are how many of them a domain has.
func (w *world) events(org, id string) int {
	w.t.Helper()
	all, err := w.store.Load(w.t.Context(), subjects.Of(org, subjects.Domain, id), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(all)
}

func record(d *domainv1.Domain, kind string) *domainv1.DNSRecord {
	for _, r := range d.GetRecords() {
		if r.GetType() == kind {
			return r
		}
	}
	return &domainv1.DNSRecord{}
}

func TestADomainIsLookedAtUntilItsDNSIsGood(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		d := w.add("acme", "shop", "WWW.Example.test.")
		if c, txt := record(d, "CNAME"), record(d, "TXT"); d.GetDomain() != name || d.GetStatus() != "pending" || d.GetIsPrimary() || d.GetSslActive() || d.GetApplicationId() != "shop" ||
			c.GetName() != name || c.GetValue() != "shop.apps.test" || txt.GetName() != "_slipway."+name || len(txt.GetValue()) < 30 || txt.GetRequired() {
			t.Fatalf("added as %v", d)
		}
		if w.holder() != "" {
			t.Error("a name is owned before it is proved")
		}
		d = w.is("acme", "shop", "pending", domain.NotFound)
		if at := d.GetNextCheckAt().AsTime(); !at.After(time.Now()) || time.Until(at) > 10*time.Second {
			t.Errorf("looked at next %s, it is %s", at, time.Now())
		}
		time.Sleep(2 * time.Minute)
		before := w.events("acme", d.GetId())
		looks := w.dns.asked()
		if looks < 8 || before != 2 {
			t.Errorf("%d looks and %d events in two minutes", looks, before)
		}
		// It goes on where it was after a restart, and notes no more than before.
		w.restart()
		w.is("acme", "shop", "pending", domain.NotFound)
		w.dns.set(func(d *dns) { d.alias[name] = "other.test" })
		time.Sleep(3 * time.Minute)
		w.is("acme", "shop", "pending", domain.NotFound)
		w.dns.set(func(d *dns) { d.alias[name] = "shop.apps.test" })
		time.Sleep(3 * time.Minute)
		d = w.is("acme", "shop", "verified", "")
		if d.GetVerifiedAt() == nil || w.holder() != "domain/"+d.GetId() || time.Until(d.GetNextCheckAt().AsTime()) < 5*time.Hour {
			t.Errorf("verified as %v, owned by %q", d, w.holder())
		}
	})
}

// Behind a provider's proxy, or a tunnel, no CNAME can be seen.
func TestADomainThatThePlatformsOwnZoneHasARecordOfIsVerified(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		d := w.add("acme", "shop", name)
		time.Sleep(time.Hour)
		w.is("acme", "shop", "pending", domain.NotFound)
		record := &dnsv1.Record{Zone: "example.test", Name: name, Type: "CNAME", Content: "shop.apps.test", Proxied: true, DomainId: d.GetId()}
		w.happens(subjects.Of("other", subjects.DNSRecord, "r1"), &dnsv1.RecordApplied{Record: record})
		w.is("acme", "shop", "pending", domain.NotFound)
		w.happens(subjects.Of("acme", subjects.DNSRecord, "r2"), &dnsv1.RecordFailed{Record: record, Code: "taken"})
		w.is("acme", "shop", "pending", domain.NotFound)
		w.happens(subjects.Of("acme", subjects.DNSRecord, "r2"), &dnsv1.RecordApplied{Record: record})
		w.is("acme", "shop", "verified", "")
		if w.holder() != "domain/"+d.GetId() {
			t.Errorf("owned by %q", w.holder())
		}
		time.Sleep(24 * time.Hour)
		w.is("acme", "shop", "verified", "")
	})
}

func TestADomainIsGivenUpAfterThreeDaysAndTakenUpAgainWhenAsked(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		d := w.add("acme", "shop", name)
		time.Sleep(71 * time.Hour)
		w.is("acme", "shop", "pending", domain.NotFound)
		time.Sleep(3 * time.Hour)
		if d := w.is("acme", "shop", "failed", domain.NotFound); d.GetNextCheckAt() != nil {
			t.Errorf("given up, and looked at next %s", d.GetNextCheckAt().AsTime())
		}
		looks := w.dns.asked()
		if events := w.events("acme", d.GetId()); looks > 200 || events != 3 {
			t.Errorf("%d looks, %d events", looks, events)
		}
		w.restart()
		time.Sleep(24 * time.Hour)
		if w.dns.asked() != looks {
			t.Error("looked at after it was given up")
		}
		w.verify("acme", "shop", false, "DNS has no record of "+name)
		w.is("acme", "shop", "pending", domain.NotFound)
		w.dns.set(func(d *dns) { d.alias[name] = "shop.apps.test" })
		w.verify("acme", "shop", true, "Domain verified successfully")
		w.is("acme", "shop", "verified", "")
	})
}

func TestAVerifiedDomainThatLeadsElsewhereForLongSaysSoAndStays(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		w.dns.set(func(d *dns) { d.alias[name] = "shop.apps.test" })
		w.add("acme", "shop", name)
		time.Sleep(time.Second)
		w.is("acme", "shop", "verified", "")
		w.dns.set(func(d *dns) { d.silent = true })
		time.Sleep(48 * time.Hour)
		w.is("acme", "shop", "verified", "")
		w.verify("acme", "shop", false, "do not answer")
		w.dns.set(func(d *dns) { d.silent, d.alias = false, map[string]string{} })
		w.verify("acme", "shop", false, "no record")
		w.is("acme", "shop", "verified", "")
		time.Sleep(2 * time.Hour)
		w.is("acme", "shop", "verified", domain.NotFound)
		w.dns.set(func(d *dns) { d.alias[name] = "shop.apps.test" })
		time.Sleep(time.Hour)
		w.is("acme", "shop", "verified", "")
	})
}

func TestACertificateMakesADomainActive(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.app("acme", "shop", "")
		expires := time.Now().Add(90 * 24 * time.Hour)
		had := &edgev1.CertificateReport{EdgeId: "e1", Name: name, Issuer: "https://ca.test/dir", NotAfter: timestamppb.New(expires)}
		report := func(r *edgev1.CertificateReport) {
			t.Helper()
			if err := w.run.Certificate(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		w.add("acme", "shop", name)
		report(had)
		w.is("acme", "shop", "pending", domain.NotFound)
		w.dns.set(func(d *dns) { d.alias[name] = "shop.apps.test" })
		w.verify("acme", "shop", true, "")
		report(&edgev1.CertificateReport{EdgeId: "e1", Name: name, Issuer: "https://ca.test/dir", Error: "too many " + strings.Repeat("x", 2000), RetryAt: timestamppb.New(time.Now().Add(time.Hour))})
		if d := w.is("acme", "shop", "verified", domain.CertificateFailed); !strings.HasPrefix(d.GetReason(), "too many") || len(d.GetReason()) > 600 || d.GetSslActive() {
			t.Errorf("refused by the CA, it is %v", d)
		}
		report(had)
		d := w.is("acme", "shop", "active", "")
		if !d.GetSslActive() {
			t.Errorf("it is %v", d)
		}
		before := w.events("acme", d.GetId())
		report(had)
		report(&edgev1.CertificateReport{EdgeId: "e2", Name: "*.apps.test"})
		if after := w.events("acme", d.GetId()); after != before {
			t.Errorf("%d events of what was known", after-before)
		}
		time.Sleep(91 * 24 * time.Hour)
		if d := w.only("acme", "shop"); d.GetSslActive() {
			t.Error("a certificate that has run out counts")
		}
	})
}

func TestManyDomainsAreLookedAtAFewAtATime(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		for i := range 40 {
			app := fmt.Sprintf("app-%d", i)
			w.app("acme", app, fmt.Sprintf("a%d.example.test", i))
			w.dns.set(func(d *dns) { d.alias[fmt.Sprintf("a%d.example.test", i)] = app + ".apps.test" })
		}
		time.Sleep(time.Minute)
		for i := range 40 {
			w.is("acme", fmt.Sprintf("app-%d", i), "verified", "")
		}
	})
}
