package routing_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const brought = "shop.example"

// domain folds events of a domain of acme.
func (s *story) domain(id string, events ...proto.Message) *story {
	return s.folds(subjects.Of("acme", subjects.Domain, id), events...)
}

// kind checks whose name a host is.
func (s *story) kind(host string, want routingv1.RouteKind) *story {
	s.t.Helper()
	if got := s.fold.Wanted(host).GetKind(); got != want {
		s.t.Errorf("the route of %s is of the kind %s, want %s", host, got, want)
	}
	return s
}

func named(deployment string) *domainv1.DomainAdded {
	return &domainv1.DomainAdded{DomainId: "c1", DeploymentId: deployment, Name: "Shop.Example", Target: host}
}

func TestACustomDomainIsRoutedOnceItIsVerified(t *testing.T) {
	t.Parallel()
	serving(t).domain("c1", named("d1")).routed(brought, "none").due("nothing").
		domain("c1", &domainv1.DomainCheckFailed{Code: "not_found"}).routed(brought, "none").
		domain("c1", &domainv1.DomainVerified{Method: "cname"}).routed(brought, one).routed(host, one).
		kind(brought, routingv1.RouteKind_ROUTE_KIND_CUSTOM_DOMAIN).kind(host, routingv1.RouteKind_ROUTE_KIND_SUBDOMAIN).
		due("bound r1[shop.apps.test shop.example] [i1]").recorded().due("nothing").
		// What is said of it later does not take it off the air.
		domain("c1", &domainv1.CertificateFailed{}, &domainv1.DomainCheckFailed{Code: "resolves_elsewhere"}, &domainv1.DomainVerified{}, &domainv1.CertificateObtained{}).
		routed(brought, one).due("nothing")
}

func TestACustomDomainThatWasAskedForIsNotRoutedForThat(t *testing.T) {
	t.Parallel()
	e := requested()
	e.CustomDomain = brought
	given(t, e, scheduled("r1", "i1"), started("r1", "i1", 1), healthy("r1", "i1", 1)).
		routed(host, one).routed(brought, "none").due("bound r1[shop.apps.test] [i1]")
}

func TestARemovedDomainLeavesTheRoutesAndTheLogSaysSo(t *testing.T) {
	t.Parallel()
	s := serving(t).domain("c1", named("d1"), &domainv1.DomainVerified{}).recorded().
		domain("c1", &domainv1.DomainRemoved{}).routed(brought, "none").routed(host, one).
		due("bound r1[shop.apps.test] [i1]").recorded().due("nothing")
	if known := s.fold.Hosts(); !slices.Equal(known, []string{host}) {
		t.Errorf("the fold remembers %v", known)
	}
	// Added once more, by another id.
	s.domain("c2", named("d1"), &domainv1.DomainVerified{}).domain("c1", &domainv1.DomainRemoved{}).routed(brought, one)
}

func TestADomainGoesToWhomItIsLostTo(t *testing.T) {
	t.Parallel()
	other := &deploymentv1.DeploymentRequested{DeploymentId: "d2", OrgId: "acme", Host: "other.apps.test", Release: release("x1", 1)}
	serving(t).domain("c1", named("d1"), &domainv1.DomainVerified{}).recorded().of("d2", other).
		domain("c2", named("d2")).routed(brought, one).
		domain("c1", &domainv1.DomainLost{}).domain("c2", &domainv1.DomainVerified{Method: "txt"}).
		routed(brought, "STARTING d2").kind(brought, routingv1.RouteKind_ROUTE_KIND_CUSTOM_DOMAIN).
		due("bound r1[shop.apps.test] [i1]").
		// It does not come back by itself.
		domain("c2", &domainv1.DomainRemoved{}).routed(brought, "none")
}

func TestADomainFollowsItsDeployment(t *testing.T) {
	t.Parallel()
	serving(t).domain("c1", named("d1"), &domainv1.DomainVerified{}).recorded().
		when(&deploymentv1.StopRequested{}).routed(brought, "STOPPED d1").due("removed [shop.apps.test shop.example]").
		recorded().when(&deploymentv1.DeploymentStopped{}, restart("r2", 2)).routed(brought, "STARTING d1").
		when(&deploymentv1.DestroyRequested{}).routed(brought, "none").
		domain("c1", &domainv1.DomainRemoved{}).routed(brought, "none")
	// One whose first release failed has given its subdomain back, not its domain.
	given(t, requested()).domain("c1", named("d1"), &domainv1.DomainVerified{}).when(failed("r1")).
		routed(host, "none").routed(brought, "STOPPED d1")
}

func TestADomainOfAnotherOrgsDeploymentIsNotRouted(t *testing.T) {
	t.Parallel()
	foreign := subjects.Of("other", subjects.Domain, "c1")
	serving(t).folds(foreign, named("d1"), &domainv1.DomainVerified{}).routed(brought, "none").due("nothing").
		domain("c9", &domainv1.DomainVerified{}).due("nothing")
}
