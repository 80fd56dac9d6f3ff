package edge

import (
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/balance"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/feed"
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

// newPool chooses instances, and has health told of those that fail.
func newPool(cfg Config, f *feed.Feed, log *slog.Logger) *balance.Pool {
	settings := balance.Settings{InARow: cfg.EjectAfter, Burst: cfg.EjectBurst, Window: errorWindow, For: cfg.EjectFor}
	return balance.New(settings, time.Now, func(e balance.Ejection) {
		log.Warn("an instance is passed over", "host", e.Route.GetHost(), "deployment", e.Route.GetDeploymentId(),
			"instance", e.Instance.ID, "reason", e.Reason, "until", e.Until)
		f.Report(&edgev1.UpstreamReport{
			OrgId: e.Route.GetOrgId(), DeploymentId: e.Route.GetDeploymentId(), ReleaseId: e.Route.GetReleaseId(), InstanceId: e.Instance.ID,
			Reason: e.Reason, Failures: uint32(e.Failures), At: timestamppb.Now(), Until: timestamppb.New(e.Until),
		})
	})
}
