package module

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// lastTried is set by the reverse proxy to the upstream of the attempt before.
const lastTried = "http.reverse_proxy.upstream.hostport"

// UpstreamSource gives the reverse proxy the instances that the table holds at
// this very attempt. A second attempt goes to another instance when there is one.
type UpstreamSource struct {
	table *table.Table
}

// CaddyModule implements caddy.Module.
func (s *UpstreamSource) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.upstreams." + Upstreams,
		New: func() caddy.Module { return &UpstreamSource{table: s.table} },
	}
}

// GetUpstreams implements reverseproxy.UpstreamSource. The values are made for
// this request: the reverse proxy writes to them.
func (s *UpstreamSource) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	route, ok := s.table.Lookup(table.Host(r.Host))
	if !ok || !table.Serves(route) {
		return nil, nil
	}
	failed := ""
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		failed, _ = repl.GetString(lastTried)
	}
	return others(route.GetUpstreams(), failed), nil
}

func others(all []*routingv1.Upstream, failed string) []*reverseproxy.Upstream {
	out := make([]*reverseproxy.Upstream, 0, len(all))
	for _, u := range all {
		if len(all) == 1 || u.GetAddress() != failed {
			out = append(out, &reverseproxy.Upstream{Dial: u.GetAddress()})
		}
	}
	return out
}

var _ reverseproxy.UpstreamSource = (*UpstreamSource)(nil)
