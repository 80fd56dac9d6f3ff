package module

import (
	"encoding/json"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
)

// Ready answers 200 when the edge has a table to serve from, live or from disk,
// and 503 before. It also keeps the table's figures.
type Ready struct {
	deps Deps
}

// CaddyModule implements caddy.Module.
func (h *Ready) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerReady, New: func() caddy.Module { return &Ready{deps: h.deps} }}
}

// Provision implements caddy.Provisioner.
func (h *Ready) Provision(ctx caddy.Context) error {
	for _, g := range []struct {
		name, help string
		value      func() float64
	}{
		{"slipway_edge_routes", "Hosts in the route table.", func() float64 { return float64(h.deps.Table.Len()) }},
		{"slipway_edge_revision", "Revision of the route table that is served.", func() float64 { return float64(h.deps.Table.Revision()) }},
		{"slipway_edge_connected", "1 while the control plane is there.", func() float64 { return bit(h.deps.Connected()) }},
		{"slipway_edge_away_seconds", "How long the control plane has not been there; 0 while it is.", func() float64 { return h.deps.Away().Seconds() }},
		{"slipway_edge_ejected", "Instances that are passed over because requests to them failed.", func() float64 { return float64(h.deps.Pool.Ejected()) }},
		{"slipway_edge_tunnels", "Open WebSockets, other upgraded connections and event streams.", func() float64 { return float64(h.deps.Tunnels.Open()) }},
		{"slipway_edge_connections", "Open connections from clients.", func() float64 { return float64(h.deps.Conns.Open()) }},
	} {
		gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, g.value)
		if _, err := registerOnce(ctx.GetMetricsRegistry(), gauge); err != nil {
			return err
		}
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Ready) ServeHTTP(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler) error {
	body := struct {
		Status    string `json:"status"`
		Connected bool   `json:"connected"`
		Routes    int    `json:"routes"`
		Revision  uint64 `json:"revision"`
	}{"ready", h.deps.Connected(), h.deps.Table.Len(), h.deps.Table.Revision()}
	status := http.StatusOK
	if !h.deps.Table.Loaded() {
		body.Status, status = "starting", http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The status line is out: a failed write means the client is gone.
	_ = json.NewEncoder(w).Encode(body)
	return nil
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var (
	_ caddy.Provisioner           = (*Ready)(nil)
	_ caddyhttp.MiddlewareHandler = (*Ready)(nil)
)
