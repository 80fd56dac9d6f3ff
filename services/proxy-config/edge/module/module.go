// Package module holds the Caddy modules of the edge. They are given the live
// table when they are registered, so that Caddy's configuration never changes
// while routes do.
package module

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/access"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/balance"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/certs"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/pages"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/tunnel"
)

// Names of the modules in Caddy's configuration.
const (
	// HandlerIDs gives each request its id and trace context.
	HandlerIDs = "slipway_ids"
	// HandlerHop takes away what clients must not tell apps.
	HandlerHop = "slipway_hop"
	// HandlerRoute answers for hosts that cannot be served and lets the others by.
	HandlerRoute = "slipway_route"
	// HandlerAccess takes note of every request for an app.
	HandlerAccess = "slipway_access"
	// HandlerClient settles who the client is.
	HandlerClient = "slipway_client"
	// HandlerPolicy holds requests to what an app's owner asked for.
	HandlerPolicy = "slipway_policy"
	// HandlerDeadline ends requests that an app does not answer in its time.
	HandlerDeadline = "slipway_deadline"
	// MatcherCompressible matches requests whose answers may be compressed.
	MatcherCompressible = "slipway_compressible"
	// HandlerErrors answers when proxying failed.
	HandlerErrors = "slipway_errors"
	// HandlerReady says whether the edge has a table to serve from.
	HandlerReady = "slipway_ready"
	// HandlerProxy sends requests to instances.
	HandlerProxy = "slipway_proxy"
	// Permission lets on-demand TLS make certificates for hosts in the table.
	Permission = "slipway"
	// UnknownHosts gives hosts that are not in the table a certificate all the same.
	UnknownHosts = "slipway_unknown"
	// KeptCertificates gives hosts in the table the certificates that the keeper has.
	KeptCertificates = "slipway_kept"
	// Shared is the storage that edges share.
	Shared = "slipway"
	// HandlerRedirect sends requests from HTTP to HTTPS.
	HandlerRedirect = "slipway_redirect"
	// HandlerHSTS has browsers use HTTPS only.
	HandlerHSTS = "slipway_hsts"
	// Listener counts open connections.
	Listener = "slipway_count"
)

// Deps are what the modules work on.
type Deps struct {
	Table *table.Table
	Pages *pages.Writer
	Conns *Conns
	// Pool chooses instances, Tunnels ends what outlives requests.
	Pool    *balance.Pool
	Tunnels *tunnel.Registry
	// Certs gets and keeps certificates.
	Certs *certs.Keeper
	// Storage is shared by all edges; nil where each has its own.
	Storage certmagic.Storage
	// Access takes note of requests.
	Access *access.Recorder
	// Cloudflare are the ranges whose word of the client is believed; none for nobody's.
	Cloudflare []netip.Prefix
	// Connected reports whether the control plane is there.
	Connected func() bool
	// Away is how long it has not been there; 0 while it is.
	Away func() time.Duration
}

// Register makes the modules known to Caddy, once in a process.
func Register(d Deps) {
	for _, m := range []caddy.Module{
		&Access{deps: d}, &Client{deps: d}, &Policy{deps: d}, &Deadline{table: d.Table}, &Compressible{table: d.Table},
		&IDs{}, &Hop{}, &Route{deps: d}, &Errors{deps: d}, &Ready{deps: d}, &Proxy{deps: d},
		&CertPermission{keeper: d.Certs}, &UnknownCert{table: d.Table}, &CountConns{conns: d.Conns},
		&Certificates{keeper: d.Certs}, &SharedStorage{storage: d.Storage}, &Redirect{deps: d}, &HSTS{deps: d},
	} {
		caddy.RegisterModule(m)
	}
}

// registerOnce tolerates that both listeners' handlers share one figure.
func registerOnce[C prometheus.Collector](registry prometheus.Registerer, c C) (C, error) {
	err := registry.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("registering a metric: %w", err)
	}
	return c, nil
}
