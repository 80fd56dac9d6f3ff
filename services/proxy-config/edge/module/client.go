package module

import (
	"net/http"
	"net/netip"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// headerCloudflareClient is where Cloudflare says who asked.
const headerCloudflareClient = "Cf-Connecting-Ip"

// Client settles who the client is where Cloudflare says so, and takes that header
// away where anybody else does: apps believe it.
type Client struct {
	deps Deps
}

// CaddyModule implements caddy.Module.
func (h *Client) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerClient, New: func() caddy.Module { return &Client{deps: h.deps} }}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Client) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	said := r.Header[headerCloudflareClient]
	if len(said) == 0 {
		return next.ServeHTTP(w, r)
	}
	if h.fromCloudflare(r.RemoteAddr) && len(said) == 1 {
		if client, err := netip.ParseAddr(said[0]); err == nil && client.Zone() == "" {
			caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, client.Unmap().String())
			return next.ServeHTTP(w, r)
		}
	}
	r.Header.Del(headerCloudflareClient)
	return next.ServeHTTP(w, r)
}

func (h *Client) fromCloudflare(remote string) bool {
	if len(h.deps.Cloudflare) == 0 {
		return false
	}
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	address := from.Addr().Unmap().WithZone("")
	return slices.ContainsFunc(h.deps.Cloudflare, func(p netip.Prefix) bool { return p.Contains(address) })
}

var _ caddyhttp.MiddlewareHandler = (*Client)(nil)
