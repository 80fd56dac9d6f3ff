package module

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// challenges is where CAs look for the answers to their challenges (RFC 8555, 8.3), over
// HTTP.
const challenges = "/.well-known/acme-challenge/"

// Redirect sends requests for hosts in the table from HTTP to HTTPS. What a trusted proxy
// took over HTTPS has come from there.
type Redirect struct {
	// Port is where the public reaches HTTPS.
	Port int `json:"port"`

	deps Deps
}

// CaddyModule implements caddy.Module.
func (h *Redirect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerRedirect, New: func() caddy.Module { return &Redirect{deps: h.deps} }}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Redirect) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	host := table.Host(r.Host)
	if _, known := h.deps.Table.Lookup(host); !known || strings.HasPrefix(r.URL.Path, challenges) || arrivedSecurely(r) {
		return next.ServeHTTP(w, r)
	}
	if h.Port != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(h.Port))
	}
	w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
	// A client that keeps its connection would meet the redirect again and again.
	w.Header().Set("Connection", "close")
	// Not 301: a POST stays a POST (RFC 9110, 15.4.9).
	w.WriteHeader(http.StatusPermanentRedirect)
	return nil
}

func arrivedSecurely(r *http.Request) bool {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// HSTS has browsers use HTTPS only for hosts in the table (RFC 6797). An app's own word
// goes before.
type HSTS struct {
	// MaxAge is how long, in seconds.
	MaxAge int64 `json:"max_age"`

	deps Deps
}

const headerHSTS = "Strict-Transport-Security"

// CaddyModule implements caddy.Module.
func (h *HSTS) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerHSTS, New: func() caddy.Module { return &HSTS{deps: h.deps} }}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *HSTS) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if _, known := h.deps.Table.Lookup(table.Host(r.Host)); known {
		w = &saysHSTS{
			ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
			value:                 "max-age=" + strconv.FormatInt(h.MaxAge, 10),
		}
	}
	return next.ServeHTTP(w, r)
}

// HSTSFor is the handler's max_age of a duration.
func HSTSFor(d time.Duration) int64 { return int64(d / time.Second) }

type saysHSTS struct {
	*caddyhttp.ResponseWriterWrapper
	value string
}

func (w *saysHSTS) WriteHeader(status int) {
	if w.Header().Get(headerHSTS) == "" {
		w.Header().Set(headerHSTS, w.value)
	}
	w.ResponseWriterWrapper.WriteHeader(status)
}

var (
	_ caddyhttp.MiddlewareHandler = (*Redirect)(nil)
	_ caddyhttp.MiddlewareHandler = (*HSTS)(nil)
)
