package routing_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

func TestAPolicyHoldsForEveryHostAndReleaseUntilTheNext(t *testing.T) {
	t.Parallel()
	s := serving(t).domain("c1", named("d1"), &domainv1.DomainVerified{Method: "cname"}).recorded()
	holds := func(want *routingv1.RoutePolicy) {
		t.Helper()
		for _, h := range []string{host, brought} {
			if got := s.fold.Wanted(h).GetPolicy(); !proto.Equal(got, want) {
				t.Fatalf("%s has the policy %v, want %v", h, got, want)
			}
		}
	}
	holds(nil)
	maintenance := &routingv1.RoutePolicy{Maintenance: true, MaxRequestBytes: 1 << 20}
	// It is nothing to bind or to tell: the route is written, and that is all.
	s.when(&deploymentv1.IngressConfigured{Policy: maintenance}).routed(host, one).due("nothing")
	holds(maintenance)
	s.when(&deploymentv1.StopRequested{})
	holds(maintenance)
	s.when(&deploymentv1.IngressConfigured{Policy: &routingv1.RoutePolicy{}})
	holds(&routingv1.RoutePolicy{})
}
