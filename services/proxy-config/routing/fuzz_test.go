package routing_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/fuzzlog"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/proxy-config/routing"
)

// FuzzEveryLogIsRouted: whatever is in a log, every host has a route that an edge can
// follow, and what is found due is due no more once it is in the log.
func FuzzEveryLogIsRouted(f *testing.F) {
	whose := subjects.Of("acme", subjects.Deployment, "d1")
	schema, err := fuzzlog.Of(deploymentv1.File_slipway_deployment_v1_events_proto, whose)
	if err != nil {
		f.Fatal(err)
	}
	live := []proto.Message{requested(), scheduled("r1", "i1"), started("r1", "i1", 1), healthy("r1", "i1", 1),
		&deploymentv1.RouteBound{ReleaseId: "r1", Hosts: []string{"a.test"}, InstanceIds: []string{"i1"}}, running("r1")}
	after := func(events ...proto.Message) []proto.Message {
		return append(append([]proto.Message{}, live...), events...)
	}
	domains, err := fuzzlog.Of(domainv1.File_slipway_domain_v1_events_proto, subjects.Of("acme", subjects.Domain, "c1"))
	if err != nil {
		f.Fatal(err)
	}
	named := &domainv1.DomainAdded{DomainId: "c1", DeploymentId: "d1", Name: "shop.example"}
	var names [][]byte
	for _, story := range [][]proto.Message{
		nil, {named}, {named, &domainv1.DomainVerified{}, &domainv1.DomainCheckFailed{}, &domainv1.DomainLost{}},
		{named, &domainv1.DomainVerified{}, &domainv1.CertificateObtained{}, &domainv1.DomainRemoved{}, named},
		{&domainv1.DomainAdded{DomainId: "c1", DeploymentId: "d1", Name: "a.test"}, &domainv1.DomainVerified{}},
	} {
		data, err := domains.Bytes(story...)
		if err != nil {
			f.Fatal(err)
		}
		names = append(names, data)
	}
	for _, story := range [][]proto.Message{
		after(restart("r2", 2), scheduled("r2", "i2", "i3"), started("r2", "i2", 1), healthy("r2", "i2", 1), running("r2", "i1")),
		after(exited("r1", "i1", 1), started("r1", "i1", 2), unhealthy("r1", "i1", 2)),
		after(moved("r1", "i1", "i2", false), started("r1", "i2", 1), healthy("r1", "i2", 1), retired("r1", "i1")),
		after(scaleTo(3), scheduled("r1", "i2", "i3"), started("r1", "i2", 1), healthy("r1", "i2", 1), scaleTo(1, "i2", "i3"), retired("r1", "i2")),
		after(scaleTo(2), scheduled("r1", "i2"), &deploymentv1.ScaleFailed{ReleaseId: "r1", LeavingInstanceIds: []string{"i2"}},
			&deploymentv1.RollbackRequested{Release: release("r2", 2), FromReleaseNumber: 1}, scheduled("r2", "i4")),
		after(moved("r1", "i1", "i1", true), moved("r1", "i1", "i1", false)),
		after(&deploymentv1.StopRequested{}, &deploymentv1.RouteRemoved{}, &deploymentv1.DeploymentStopped{}, restart("r2", 2), failed("r2")),
		after(&deploymentv1.DestroyRequested{}, &deploymentv1.RouteRemoved{}, &deploymentv1.DeploymentDestroyed{}),
	} {
		data, err := schema.Bytes(story...)
		if err != nil {
			f.Fatal(err)
		}
		for _, of := range names {
			f.Add(data, of, uint8(len(live)))
		}
	}
	f.Fuzz(func(t *testing.T, data, ofDomain []byte, after uint8) {
		fold := routing.New()
		last := uint64(0)
		log := schema.Log(data)
		// What happens to the domain comes together, somewhere in between.
		log = slices.Insert(log, min(int(after), len(log)), domains.Log(ofDomain)...)
		for _, rec := range log {
			last++
			rec.Sequence = last
			fold.Apply(rec)
			check(t, fold)
		}
		for _, id := range fold.Deployments() {
			fact, due := fold.Due(id)
			if !due {
				continue
			}
			fold.Apply(eventstore.Recorded{Sequence: last + 1, Event: eventstore.Event{Aggregate: fact.Aggregate, ID: fact.ID, Payload: fact.Payload(1)}})
			if again, still := fold.Due(id); still {
				t.Fatalf("%s is due again after it was recorded, as %s", fact.ID, again.ID)
			}
			check(t, fold)
		}
	})
}

func check(t *testing.T, fold *routing.Fold) {
	t.Helper()
	for _, host := range fold.Hosts() {
		route := fold.Wanted(host)
		if route == nil {
			continue
		}
		serving := route.State == routingv1.RouteState_ROUTE_STATE_SERVING
		if route.Host != host || serving != (len(route.Upstreams) > 0) {
			t.Fatalf("the route of %q cannot be followed: %v", host, route)
		}
		if _, err := proto.Marshal(route); err != nil {
			t.Fatalf("the route of %q cannot be written: %v", host, err)
		}
	}
}
