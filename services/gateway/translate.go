package gateway

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
)

// deployment is the dialect's word for the scheduler's; checked is the last probe
// that the gateway knows of.
func deployment(d *schedulerv1.Deployment, checked time.Time) *deployv1.Deployment {
	return &deployv1.Deployment{
		Id: d.GetId(), AppId: d.GetAppId(), DeployTierId: d.GetTierId(),
		ContainerName: d.GetContainerName(), ContainerImage: d.GetContainerImage(),
		HostServer: optional(d.GetNodeId()), Subdomain: d.GetSubdomain(), CustomDomain: optional(d.GetCustomDomain()),
		Status: d.GetStatus(), StatusReason: optional(d.GetStatusReason()),
		HealthStatus: d.GetHealthStatus(), LastHealthCheck: newest(d.GetLastHealthCheck(), checked),
		BillingStatus: d.GetBillingStatus(),
		MemoryLimitMb: d.GetMemoryLimitMb(), CpuLimitMillicores: d.GetCpuLimitMillicores(),
		InsertedAt: millis(d.GetInsertedAt()), DeployedAt: millis(d.GetDeployedAt()), StoppedAt: millis(d.GetStoppedAt()),
	}
}

func tier(t *billingv1.Tier) *deployv1.DeployTier {
	out := &deployv1.DeployTier{
		Id: t.GetId(), Name: t.GetName(), Slug: t.GetSlug(), PaymentMethod: t.GetPaymentMethod(),
		MemoryLimitMb: t.GetMemoryLimitMb(), CpuLimitMillicores: t.GetCpuLimitMillicores(),
		CustomDomainAllowed:  t.GetCustomDomainAllowed(),
		MonthlyStipendPoints: t.GetMonthlyStipendPoints(), AdReachMultiplier: t.GetAdReachMultiplier(),
	}
	if t.MonthlyCostPoints != nil {
		out.MonthlyCostPoints = wrapperspb.UInt32(t.GetMonthlyCostPoints())
	}
	if t.MonthlyCostSats != nil {
		out.MonthlyCostSats = wrapperspb.UInt32(t.GetMonthlyCostSats())
	}
	return out
}

func logEntry(e *schedulerv1.LogEntry) *deployv1.LogEntry {
	return &deployv1.LogEntry{
		Id: e.GetId(), Action: e.GetAction(), Status: e.GetStatus(), InitiatedBy: optional(e.GetInitiatedBy()),
		InsertedAt: millis(e.GetInsertedAt()), Details: e.GetDetails(),
	}
}

func optional(s string) *wrapperspb.StringValue {
	if s == "" {
		return nil
	}
	return wrapperspb.String(s)
}

// millis cuts a time to what the dialect shows.
func millis(t *timestamppb.Timestamp) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(t.AsTime().Truncate(time.Millisecond))
}

func newest(t *timestamppb.Timestamp, other time.Time) *timestamppb.Timestamp {
	if other.IsZero() || t != nil && t.AsTime().After(other) {
		return millis(t)
	}
	return millis(timestamppb.New(other))
}
