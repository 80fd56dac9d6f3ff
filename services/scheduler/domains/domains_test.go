package domains_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/domains"
)

func TestTheLastPrimaryDomainIsShown(t *testing.T) {
	t.Parallel()
	d, last := domains.New(), uint64(0)
	happens := func(id string, e proto.Message) {
		last++
		d.Apply(eventstore.Recorded{Sequence: last, Event: eventstore.Event{Aggregate: subjects.Of("acme", subjects.Domain, id), Payload: e}})
	}
	shows := func(want string, known bool) {
		t.Helper()
		if got, ok := d.Primary("app"); got != want || ok != known {
			t.Errorf("after %d events the primary domain is %q, %v; wanted %q, %v", last, got, ok, want, known)
		}
	}
	shows("", false)
	happens("a", &domainv1.DomainAdded{DeploymentId: "app", Name: "a.example", Primary: true})
	shows("a.example", true)
	happens("b", &domainv1.DomainAdded{DeploymentId: "app", Name: "b.example"})
	happens("c", &domainv1.DomainAdded{DeploymentId: "other", Name: "c.example", Primary: true})
	shows("a.example", true)
	happens("b", &domainv1.PrimaryDomainSet{})
	shows("b.example", true)
	happens("a", &domainv1.PrimaryDomainUnset{})
	if of, ok := d.Find("domain/a"); !ok || of.Deployment != "app" || of.Name != "a.example" {
		t.Errorf("domain/a is %+v, %v", of, ok)
	}
	happens("b", &domainv1.DomainLost{})
	happens("a", &domainv1.DomainRemoved{})
	happens("a", &domainv1.PrimaryDomainSet{})
	shows("", true)
	for _, holder := range []string{"domain/a", "domain/", "deployment/a", ""} {
		if of, ok := d.Find(holder); ok {
			t.Errorf("%q is %+v", holder, of)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := d.WaitFor(ctx, last); err != nil {
		t.Errorf("waiting for what is there: %v", err)
	}
	cancel()
	if err := d.WaitFor(ctx, last+1); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for what does not come: %v", err)
	}
}
