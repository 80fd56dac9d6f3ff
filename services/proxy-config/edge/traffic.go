package edge

import (
	"log/slog"
	"time"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/balance"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/tunnel"
)

// errorWindow is how far back server errors count.
const errorWindow = 10 * time.Second

// newTunnels ends what outlives its request when the table says so.
func newTunnels(routes *table.Table, drain time.Duration) *tunnel.Registry {
	tunnels := tunnel.NewRegistry(func(host, address string) (bool, time.Duration) {
		route, _ := routes.Lookup(host)
		drain := route.GetPolicy().GetDrain().AsDuration()
		for _, u := range route.GetUpstreams() {
			if u.GetAddress() == address {
				return true, drain
			}
		}
		return false, drain
	}, drain)
	routes.Watch(tunnels.Changed)
	return tunnels
}

// newPool chooses instances.
func newPool(cfg Config, log *slog.Logger) *balance.Pool {
	settings := balance.Settings{InARow: cfg.EjectAfter, Burst: cfg.EjectBurst, Window: errorWindow, For: cfg.EjectFor}
	return balance.New(settings, time.Now, func(e balance.Ejection) {
		log.Warn("an instance is passed over", "host", e.Route.GetHost(), "deployment", e.Route.GetDeploymentId(),
			"instance", e.Instance.ID, "reason", e.Reason, "until", e.Until)
	})
}
