package audit

import (
	"google.golang.org/protobuf/types/known/structpb"

	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

// ingress says how requests are treated from here on, in the words of the public API.
func ingress(p *routingv1.RoutePolicy) *structpb.Struct {
	return details(map[string]any{
		"maintenance":             p.GetMaintenance(),
		"max_request_bytes":       float64(p.GetMaxRequestBytes()),
		"request_timeout_seconds": p.GetRequestTimeout().AsDuration().Seconds(),
		"sticky":                  p.GetSticky(),
		"drain_seconds":           p.GetDrain().AsDuration().Seconds(),
		"compression":             !p.GetNoCompression(),
	})
}
