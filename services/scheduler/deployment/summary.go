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
	d.Instances = uint32(s.Count)
	if r := s.base(); r != nil {
		d.ContainerName, d.ContainerImage, d.ReleaseNumber = r.ContainerName, r.Image, r.Number
	}
	if r := s.current(); r != nil {
		d.ContainerName, d.ContainerImage, d.ReleaseNumber = r.ContainerName, r.Image, r.Number
		d.InstancesHealthy = uint32(s.answering())
		for _, id := range r.InstanceIDs {
			if i := s.Instances[id]; i != nil {
				d.NodeId, d.ContainerName = i.Node, i.Name
			}
		}
	}
	return d
}

// answering counts the healthy instances of the release that serves, or of the one
// that starts when none does.
func (s State) answering() int {
	r := s.Live
	if r == nil {
		r = s.Next
	}
	n := 0
	for _, i := range s.staying(r) {
		if i.Healthy {
			n++
		}
	}
	return n
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
