package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func withDomain(subdomain, name string) *schedulerv1.CreateDeploymentRequest {
	in := request(subdomain)
	in.Tier, in.CustomDomain = "btc-pro", name
	return in
}

func owned(name string) claims.Name { return claims.Name{Kind: claims.CustomDomain, Value: name} }

// claim gives a name to a holder, as who owns domains does.
func (p *platform) claim(holder string, name claims.Name) {
	p.t.Helper()
	taken, err := claims.Book{Store: p.store, Now: time.Now, Source: "test"}.Take(p.t.Context(), holder, name)
	must(p.t, err)
	_, err = p.store.AppendBatch(p.t.Context(), taken)
	must(p.t, err)
}

func (p *platform) holder(name claims.Name) string {
	p.t.Helper()
	s, err := claims.Book{Store: p.store}.Load(p.t.Context(), name)
	must(p.t, err)
	return s.Holder
}

// domain says that something happened to a domain of acme.
func (p *platform) domain(id string, events ...proto.Message) {
	p.t.Helper()
	for _, e := range events {
		_, err := p.store.Record(p.t.Context(), eventstore.Event{Aggregate: subjects.Of("acme", subjects.Domain, id),
			ID: fmt.Sprintf("%T-%s-%d", e, id, time.Now().UnixNano()), Payload: e, Time: time.Now(), Source: "test"})
		must(p.t, err)
	}
}

func TestADomainThatIsAskedForIsNobodysUntilItIsProved(t *testing.T) {
	t.Parallel()
	p := start(t)
	first := p.create(withDomain("first", "Bücher.Example"))
	const name = "xn--bcher-kva.example"
	if first.CustomDomain != name || p.holder(owned(name)) != "" {
		t.Fatalf("created with %q, owned by %q", first.CustomDomain, p.holder(owned(name)))
	}
	refused := func(who, says string) {
		t.Helper()
		_, err := p.client.CreateDeployment(t.Context(), withDomain(who, name))
		fields := fault(t, err, problem.CodeValidation).Fields
		if len(fields) != 1 || fields[0].Field != "custom_domain" || !strings.Contains(fields[0].Message, says) {
			t.Errorf("refused for %v, wanted %q", fields, says)
		}
	}
	// Added, it is the organization's once; proved by another, it is theirs.
	p.domain("d1", &domainv1.DomainAdded{DomainId: "d1", DeploymentId: first.Id, Name: name, Primary: true})
	p.claim("domain/d1", claims.OrgsDomain("acme", name))
	within(t, "the domain is known", func() bool {
		_, err := p.client.CreateDeployment(t.Context(), withDomain("second", name))
		return strings.Contains(problem.From(err).Message, `your app "first"`)
	})
	const theirs = "www.theirs.example"
	p.claim("domain/elsewhere", owned(theirs))
	_, err := p.client.CreateDeployment(t.Context(), withDomain("third", theirs))
	if fields := fault(t, err, problem.CodeValidation).Fields; len(fields) != 1 || !strings.Contains(fields[0].Message, "TXT record") {
		t.Errorf("refused for %v", fields)
	}
	refused("fourth", "already")
}

func TestTheDeploymentShowsItsPrimaryDomain(t *testing.T) {
	t.Parallel()
	p := start(t)
	d := p.create(withDomain("my-app", "www.example.com"))
	shows := func(want string) {
		t.Helper()
		list, err := p.client.ListDeployments(t.Context(), &schedulerv1.ListDeploymentsRequest{Principal: owner()})
		must(t, err)
		if one := p.get(d.Id).CustomDomain; one != want || list.Deployments[0].CustomDomain != want {
			t.Errorf("it shows %q and lists %q, wanted %q", one, list.Deployments[0].CustomDomain, want)
		}
	}
	shows("www.example.com")
	p.domain("d1", &domainv1.DomainAdded{DomainId: "d1", DeploymentId: d.Id, Name: "www.example.com", Primary: true})
	p.domain("d2", &domainv1.DomainAdded{DomainId: "d2", DeploymentId: d.Id, Name: "shop.example.com"})
	shows("www.example.com")
	p.domain("d2", &domainv1.PrimaryDomainSet{})
	shows("shop.example.com")
	p.domain("d2", &domainv1.DomainRemoved{})
	p.domain("d1", &domainv1.PrimaryDomainUnset{})
	shows("")
}

func TestADeploymentOfAnOlderLogGivesItsDomainBack(t *testing.T) {
	t.Parallel()
	p := start(t)
	d := p.create(withDomain("my-app", "www.example.com"))
	p.claim("deployment/"+d.Id, owned("www.example.com"))
	_, err := p.client.DestroyDeployment(t.Context(), &schedulerv1.DestroyDeploymentRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	if holder := p.holder(owned("www.example.com")); holder != "" {
		t.Errorf("destroyed, and %s owns its domain", holder)
	}
	// One that was moved to the domain itself is the domain's to release.
	d = p.create(withDomain("my-app", "www.example.com"))
	p.claim("domain/d1", owned("www.example.com"))
	_, err = p.client.DestroyDeployment(t.Context(), &schedulerv1.DestroyDeploymentRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	if holder := p.holder(owned("www.example.com")); holder != "domain/d1" {
		t.Errorf("the owner is %q", holder)
	}
}
