package routing

import (
	"google.golang.org/protobuf/proto"

	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

// withDrain adds what edges need to know of a release's drain, unless the app's owner
// asked for another: node-agents end an instance that long after it left the route, and
// by then its WebSockets must have been told.
func (d *deployment) withDrain(policy *routingv1.RoutePolicy) *routingv1.RoutePolicy {
	if d.drain.AsDuration() <= 0 || policy.GetDrain() != nil {
		return policy
	}
	if policy == nil {
		return &routingv1.RoutePolicy{Drain: d.drain}
	}
	policy = proto.CloneOf(policy)
	policy.Drain = d.drain
	return policy
}
