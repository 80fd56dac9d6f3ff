package module

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// Compressible matches requests whose answers may be compressed on their way: the
// client takes it, the app's owner did not ask for the contrary, and the connection
// stays HTTP.
type Compressible struct {
	table *table.Table
}

// CaddyModule implements caddy.Module.
func (m *Compressible) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.matchers." + MatcherCompressible, New: func() caddy.Module { return &Compressible{table: m.table} }}
}

// MatchWithError implements caddyhttp.RequestMatcherWithError.
func (m *Compressible) MatchWithError(r *http.Request) (bool, error) {
	accepted := r.Header["Accept-Encoding"]
	if len(accepted) == 0 || len(r.Header["Upgrade"]) > 0 || r.Method == http.MethodConnect || r.Method == http.MethodHead {
		return false, nil
	}
	// Events must come as they happen.
	for _, accept := range r.Header["Accept"] {
		if strings.Contains(accept, "text/event-stream") {
			return false, nil
		}
	}
	route, ok := routeOf(r, m.table)
	return ok && !route.GetPolicy().GetNoCompression(), nil
}

var _ caddyhttp.RequestMatcherWithError = (*Compressible)(nil)
