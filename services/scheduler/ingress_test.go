package scheduler_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

func TestTheIngressIsTheOrganizationsToChange(t *testing.T) {
	t.Parallel()
	p := start(t)
	d := p.create(request("my-app"))
	before, err := p.client.GetIngress(t.Context(), &schedulerv1.GetIngressRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	if got := before.GetPolicy(); got == nil || got.GetMaintenance() {
		t.Fatalf("a new one has %v", got)
	}
	changed, err := p.client.ConfigureIngress(t.Context(), &schedulerv1.ConfigureIngressRequest{
		Principal: owner(), Id: d.Id, Maintenance: wrapperspb.Bool(true), RequestTimeoutSeconds: wrapperspb.Int32(7)})
	must(t, err)
	if got := changed.GetPolicy(); !got.GetMaintenance() || got.GetRequestTimeout().AsDuration() != 7*time.Second || changed.GetSequence() <= d.GetSequence() {
		t.Fatalf("answered %v", changed)
	}
	after, err := p.client.GetIngress(t.Context(), &schedulerv1.GetIngressRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	if !after.GetPolicy().GetMaintenance() {
		t.Fatalf("a read after the change shows %v", after)
	}
	logs, err := p.client.ListLogs(t.Context(), &schedulerv1.ListLogsRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	last := logs.GetLogs()[len(logs.GetLogs())-1]
	if last.GetAction() != "ingress" || last.GetStatus() != "completed" || last.GetInitiatedBy() != "app1" || !last.GetDetails().GetFields()["maintenance"].GetBoolValue() {
		t.Fatalf("the audit log ends with %v", last)
	}

	other := &identityv1.Principal{OperatorId: "op-9", OrgId: "others", AppId: "app9"}
	for id, want := range map[string]int{d.Id: 403, "00000000-0000-4000-8000-000000000000": 404, "no-id": 404} {
		_, err := p.client.ConfigureIngress(t.Context(), &schedulerv1.ConfigureIngressRequest{Principal: other, Id: id, Maintenance: wrapperspb.Bool(false)})
		if got := problem.From(err).Status; got != want {
			t.Errorf("another org changes %s: %v", id, err)
		}
		if _, err := p.client.GetIngress(t.Context(), &schedulerv1.GetIngressRequest{Principal: other, Id: id}); problem.From(err).Status != want {
			t.Errorf("another org reads %s: %v", id, err)
		}
	}
	if _, err := p.client.ConfigureIngress(t.Context(), &schedulerv1.ConfigureIngressRequest{
		Principal: owner(), Id: d.Id, DrainSeconds: wrapperspb.Int32(1 << 20)}); problem.From(err).Status != 422 {
		t.Errorf("a drain of days: %v", err)
	}
}
