package deployment

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
)

// billingActive is the only billing status until money is kept.
const billingActive = "active"

// Summary is the state as readers see it.
func Summary(s State) *schedulerv1.Deployment {
	d := &schedulerv1.Deployment{
		Id: s.ID, OrgId: s.Org, OperatorId: s.Operator, AppId: s.App,
		Subdomain: s.Subdomain, CustomDomain: s.CustomDomain, Host: s.Host,
		Status: string(s.Status), StatusReason: s.Reason, HealthStatus: string(s.HealthStatus()),
		BillingStatus: billingActive, InsertedAt: stamp(s.InsertedAt),
		DeployedAt: stamp(s.DeployedAt), StoppedAt: stamp(s.StoppedAt), Sequence: s.Sequence,
	}
	if s.Tier != nil {
		d.TierId = s.Tier.Id
		d.MemoryLimitMb, d.CpuLimitMillicores = s.Tier.MemoryLimitMb, s.Tier.CpuLimitMillicores
	}
	if s.Latest != nil {
		d.ContainerName, d.ContainerImage = s.Latest.ContainerName, s.Latest.Image
	}
	if r := s.current(); r != nil {
		d.ContainerName, d.ContainerImage = r.ContainerName, r.Image
		for _, id := range r.InstanceIDs {
			if i := s.Instances[id]; i != nil {
				d.NodeId, d.ContainerName = i.Node, i.Name
			}
		}
	}
	return d
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
