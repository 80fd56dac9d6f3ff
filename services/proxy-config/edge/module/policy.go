package module

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/pages"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

var errTooLarge = errors.New("the request's body is larger than the app takes")

// Policy holds requests to what the app's owner asked for, and to the platform's own
// bound where they asked for nothing: maintenance, and the size of a body.
type Policy struct {
	// MaxRequestBytes bounds bodies of apps that say nothing of it; 0 for no bound.
	MaxRequestBytes uint64 `json:"max_request_bytes,omitempty"`

	deps  Deps
	shown *prometheus.CounterVec
}

// CaddyModule implements caddy.Module.
func (h *Policy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerPolicy, New: func() caddy.Module { return &Policy{deps: h.deps} }}
}

// Provision implements caddy.Provisioner.
func (h *Policy) Provision(ctx caddy.Context) error {
	shown, err := pagesShown(ctx.GetMetricsRegistry())
	h.shown = shown
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Policy) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	host := table.Host(r.Host)
	route, ok := routeOf(r, h.deps.Table)
	if !ok {
		return next.ServeHTTP(w, r)
	}
	policy := route.GetPolicy()
	if policy.GetMaintenance() {
		page := pages.Maintenance()
		h.shown.WithLabelValues(page.Code).Inc()
		answeredBy(r, page.Code)
		return h.deps.Pages.Write(w, r, host, page)
	}
	var body *boundedBody
	if limit := orElse(policy.GetMaxRequestBytes(), h.MaxRequestBytes); limit > 0 && r.Body != nil && r.Body != http.NoBody {
		if r.ContentLength > int64(min(limit, 1<<62)) {
			return caddyhttp.Error(http.StatusRequestEntityTooLarge, errTooLarge)
		}
		body = &boundedBody{ReadCloser: r.Body, limit: limit, left: limit}
		r.Body = body
	}
	err := next.ServeHTTP(w, r)
	if err != nil && body != nil && body.exceeded.Load() {
		// What the proxy makes of it is about the app, which is not at fault.
		return caddyhttp.Error(http.StatusRequestEntityTooLarge, errTooLarge)
	}
	return err
}

func orElse(value, otherwise uint64) uint64 {
	if value > 0 {
		return value
	}
	return otherwise
}

// boundedBody fails a read that goes beyond what is left, so that the app never sees
// more, whatever length the client gave.
type boundedBody struct {
	io.ReadCloser
	limit    uint64
	left     uint64
	exceeded atomic.Bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.exceeded.Load() {
		return 0, b.tooLarge()
	}
	// One byte more tells a body that ends here from one that goes on.
	if uint64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if uint64(n) > b.left {
		b.exceeded.Store(true)
		n, b.left = int(b.left), 0
		return n, b.tooLarge()
	}
	b.left -= uint64(n)
	return n, err
}

func (b *boundedBody) tooLarge() error { return &http.MaxBytesError{Limit: int64(min(b.limit, 1<<62))} }

var (
	_ caddy.Provisioner           = (*Policy)(nil)
	_ caddyhttp.MiddlewareHandler = (*Policy)(nil)
)
