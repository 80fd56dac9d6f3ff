package module

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Hop takes away what a client says that is not for the app to believe, or not for
// the client to ask of it. X-Forwarded-* and X-Real-Ip are the reverse proxy's to set.
type Hop struct{}

// CaddyModule implements caddy.Module.
func (*Hop) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerHop, New: func() caddy.Module { return new(Hop) }}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (*Hop) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	// RFC 7239: the edge speaks X-Forwarded-*; two stories would disagree.
	r.Header.Del("Forwarded")
	// RFC 7540 3.2, gone from RFC 9113: an app that switched to HTTP/2 would get
	// requests behind the edge's back. A server may ignore Upgrade (RFC 9110 7.8), so
	// the request is served as HTTP/1.1.
	r.Header.Del("Http2-Settings")
	if asksForH2C(r.Header["Upgrade"]) {
		r.Header.Del("Upgrade")
	}
	return next.ServeHTTP(w, r)
}

func asksForH2C(upgrade []string) bool {
	for _, line := range upgrade {
		for protocol := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(protocol), "/")
			if strings.EqualFold(name, "h2c") || strings.EqualFold(name, "h2") || strings.EqualFold(name, "http") {
				return true
			}
		}
	}
	return false
}

var _ caddyhttp.MiddlewareHandler = (*Hop)(nil)
