package module

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

var errTooSlow = errors.New("the app did not begin its answer in the time that it has")

// Deadline ends requests of apps whose answers do not begin in the time that their
// owner gave them. It stands next to the proxy: handlers between them may hold the
// beginning of an answer back.
type Deadline struct {
	table *table.Table
}

// CaddyModule implements caddy.Module.
func (h *Deadline) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerDeadline, New: func() caddy.Module { return &Deadline{table: h.table} }}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Deadline) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	route, ok := routeOf(r, h.table)
	if !ok || route.GetPolicy().GetRequestTimeout() == nil {
		// The proxy has the platform's own limit.
		return next.ServeHTTP(w, r)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	timer := time.AfterFunc(route.GetPolicy().GetRequestTimeout().AsDuration(), func() { cancel(errTooSlow) })
	defer timer.Stop()
	timed := &timedAnswer{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, timer: timer}
	err := next.ServeHTTP(timed, r.WithContext(ctx))
	if err != nil && errors.Is(context.Cause(ctx), errTooSlow) {
		return caddyhttp.Error(http.StatusGatewayTimeout, errTooSlow)
	}
	return err
}

// timedAnswer stops the timer once the answer begins.
type timedAnswer struct {
	caddyhttp.ResponseWriterWrapper
	timer *time.Timer
}

// WriteHeader implements http.ResponseWriter.
func (a *timedAnswer) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		a.timer.Stop()
	}
	a.ResponseWriterWrapper.WriteHeader(status)
}

var _ caddyhttp.MiddlewareHandler = (*Deadline)(nil)
