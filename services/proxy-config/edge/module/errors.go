package module

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/pages"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// Errors answers when proxying failed, and tells apart what a client needs to
// know: nothing reached the app (503, try again), or it may have (502, 504).
type Errors struct {
	deps  Deps
	shown *prometheus.CounterVec
}

// CaddyModule implements caddy.Module.
func (h *Errors) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerErrors, New: func() caddy.Module { return &Errors{deps: h.deps} }}
}

// Provision implements caddy.Provisioner.
func (h *Errors) Provision(ctx caddy.Context) error {
	shown, err := pagesShown(ctx.GetMetricsRegistry())
	h.shown = shown
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Errors) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	host := table.Host(r.Host)
	err, _ := r.Context().Value(caddyhttp.ErrorCtxKey).(error)
	page := h.page(host, err)
	h.shown.WithLabelValues(page.Code).Inc()
	answeredBy(r, page.Code)
	return h.deps.Pages.Write(w, r, host, page)
}

func (h *Errors) page(host string, err error) pages.Page {
	var failed caddyhttp.HandlerError
	if !errors.As(err, &failed) {
		return pages.Failed(http.StatusInternalServerError)
	}
	switch {
	case unreachable(failed.Err):
		return pages.Unreachable()
	case failed.StatusCode == http.StatusServiceUnavailable:
		// The last upstream left the table between the lookup and the attempt.
		if route, ok := h.deps.Table.Lookup(host); ok {
			return notServing(route.GetState())
		}
		return pages.UnknownHost()
	case failed.StatusCode == http.StatusRequestEntityTooLarge:
		return pages.TooLarge()
	case failed.StatusCode == http.StatusBadGateway:
		return pages.BadAnswer()
	case failed.StatusCode == http.StatusGatewayTimeout:
		return pages.TimedOut()
	case failed.StatusCode >= 400:
		return pages.Failed(failed.StatusCode)
	default:
		return pages.Failed(http.StatusInternalServerError)
	}
}

var (
	_ caddy.Provisioner           = (*Errors)(nil)
	_ caddyhttp.MiddlewareHandler = (*Errors)(nil)
)
