package module

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/pages"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// Route lets requests for hosts that serve go on, and answers the others itself:
// 404 for a host that nobody has, 503 for an app that is starting, down or stopped.
type Route struct {
	deps  Deps
	shown *prometheus.CounterVec
}

// CaddyModule implements caddy.Module.
func (h *Route) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerRoute, New: func() caddy.Module { return &Route{deps: h.deps} }}
}

// Provision implements caddy.Provisioner.
func (h *Route) Provision(ctx caddy.Context) error {
	shown, err := pagesShown(ctx.GetMetricsRegistry())
	h.shown = shown
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Route) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	host := table.Host(r.Host)
	route, known := routeOf(r, h.deps.Table)
	if known && table.Serves(route) {
		return next.ServeHTTP(w, r)
	}
	page := pages.UnknownHost()
	switch {
	case known:
		page = notServing(route.GetState())
	case !h.deps.Table.Loaded():
		page = pages.EdgeStarting()
	}
	h.shown.WithLabelValues(page.Code).Inc()
	answeredBy(r, page.Code)
	return h.deps.Pages.Write(w, r, host, page)
}

func notServing(state routingv1.RouteState) pages.Page {
	switch state {
	case routingv1.RouteState_ROUTE_STATE_STARTING:
		return pages.Starting()
	case routingv1.RouteState_ROUTE_STATE_STOPPED:
		return pages.Stopped()
	default:
		return pages.Down()
	}
}

func pagesShown(registry prometheus.Registerer) (*prometheus.CounterVec, error) {
	return registerOnce(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "slipway_edge_pages_total",
		Help: "Requests that the edge answered itself, by the code of the answer.",
	}, []string{"code"}))
}

var (
	_ caddy.Provisioner           = (*Route)(nil)
	_ caddyhttp.MiddlewareHandler = (*Route)(nil)
)
