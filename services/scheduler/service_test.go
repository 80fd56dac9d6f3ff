package scheduler_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
)

func TestADeploymentLivesThroughAllItsJourneys(t *testing.T) {
	t.Parallel()
	p := start(t)
	d := p.create(request("my-app"))
	if d.Status != "pending" || d.ContainerImage != "ghcr.io/acme/app:1" || !strings.HasPrefix(d.ContainerName, "my-app-") || d.AppId != "app1" || d.BillingStatus != "active" {
		t.Fatalf("created as %v", d)
	}
	within(t, "it says why it waits", func() bool { return strings.Contains(p.get(d.Id).StatusReason, "No node is connected") })

	p.node("n1", 1024)
	first := p.desired(d.Id, nodev1.DesiredState_DESIRED_STATE_RUNNING)
	p.status(d.Id, "deploying")
	p.serve(first)
	p.status(d.Id, "running")

	_, err := p.client.RestartDeployment(t.Context(), &schedulerv1.RestartDeploymentRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	if got := p.get(d.Id); got.Status != "deploying" || got.HealthStatus != "healthy" {
		t.Fatalf("a read after the restart shows %s, %s", got.Status, got.HealthStatus)
	}
	var second *nodev1.DesiredInstance
	within(t, "the new instance is placed", func() bool {
		second = p.desired(d.Id, nodev1.DesiredState_DESIRED_STATE_RUNNING)
		return second.InstanceId != first.InstanceId || p.get(d.Id).ContainerName == second.ContainerName
	})
	for _, e := range p.running(d.Id) {
		if e.InstanceId != first.InstanceId {
			second = e
		}
	}
	p.serve(second)
	p.status(d.Id, "running")
	old := p.desired(d.Id, nodev1.DesiredState_DESIRED_STATE_DRAINING)
	if old.InstanceId != first.InstanceId {
		t.Fatalf("%s drains, not the old %s", old.InstanceId, first.InstanceId)
	}
	p.record(first, &deploymentv1.ContainerRemoved{ReleaseId: first.ReleaseId, InstanceId: first.InstanceId})

	_, err = p.client.StopDeployment(t.Context(), &schedulerv1.StopDeploymentRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	p.record(p.desired(d.Id, nodev1.DesiredState_DESIRED_STATE_REMOVED), &deploymentv1.RouteRemoved{}, &deploymentv1.ContainerRemoved{ReleaseId: second.ReleaseId, InstanceId: second.InstanceId})
	p.status(d.Id, "stopped")

	_, err = p.client.DestroyDeployment(t.Context(), &schedulerv1.DestroyDeploymentRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	again := p.create(request("my-app"))
	p.status(d.Id, "destroyed")
	if again.Id == d.Id {
		t.Fatal("the same deployment again")
	}
	logs, err := p.client.ListLogs(t.Context(), &schedulerv1.ListLogsRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	var actions []string
	for _, l := range logs.Logs {
		actions = append(actions, l.Action+" "+l.Status+" "+l.InitiatedBy)
	}
	if want := []string{"create completed app1", "deploy completed ", "restart completed app1", "stop completed app1", "destroy completed app1"}; !slices.Equal(actions, want) {
		t.Fatalf("the audit log is %q", actions)
	}
}

// running are the instances that nodes must run now.
func (p *platform) running(deployment string) []*nodev1.DesiredInstance {
	p.t.Helper()
	v, err := view.Open(p.t.Context(), p.js, subjects.BucketDesired, func() *nodev1.DesiredInstance { return &nodev1.DesiredInstance{} })
	must(p.t, err)
	var out []*nodev1.DesiredInstance
	within(p.t, "two instances are wanted", func() bool {
		entries, err := v.Snapshot(p.t.Context(), ">")
		must(p.t, err)
		out = nil
		for _, e := range entries {
			if e.Value.DeploymentId == deployment {
				out = append(out, e.Value)
			}
		}
		return len(out) == 2
	})
	return out
}

func TestARefusedRequestNamesEveryFieldAndLeavesNothing(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.create(request("taken"))
	port := int64(0)
	_, err := p.client.CreateDeployment(t.Context(), &schedulerv1.CreateDeploymentRequest{Principal: owner(), Subdomain: "taken", Image: "quay.io/x",
		Tier: "gold", Port: &port, CustomDomain: "bad", EnvVars: map[string]string{"1": ""}})
	var fields []string
	for _, f := range fault(t, err, problem.CodeValidation).Fields {
		fields = append(fields, f.Field)
	}
	slices.Sort(fields)
	if want := []string{"custom_domain", "env_vars.1", "image", "port", "subdomain", "tier"}; !slices.Equal(fields, want) {
		t.Fatalf("fields at fault: %v, want %v", fields, want)
	}
	list, err := p.client.ListDeployments(t.Context(), &schedulerv1.ListDeploymentsRequest{Principal: owner()})
	must(t, err)
	if len(list.Deployments) != 1 {
		t.Fatalf("%d deployments after a refused one", len(list.Deployments))
	}
}

func TestOnlyOneOfManyGetsAName(t *testing.T) {
	t.Parallel()
	p := start(t)
	results := make(chan error, 8)
	for range cap(results) {
		go func() {
			_, err := p.client.CreateDeployment(context.Background(), request("wanted"))
			results <- err
		}()
	}
	won := 0
	for range cap(results) {
		if err := <-results; err == nil {
			won++
		} else {
			fault(t, err, problem.CodeValidation)
		}
	}
	if won != 1 {
		t.Fatalf("%d deployments have the name", won)
	}
}

func TestOthersAreRefused(t *testing.T) {
	t.Parallel()
	p := start(t)
	d := p.create(request("mine"))
	for name, other := range map[string]*identityv1.Principal{
		"another org":                {OrgId: "evil", OperatorId: "op1", AppId: "x"},
		"another org that injects":   {OrgId: "*", OperatorId: "op1", AppId: "x"},
		"another org with an id too": {OrgId: "evil", OperatorId: "op1", AppId: "app1"},
	} {
		for call, err := range map[string]error{
			"get":     second(p.client.GetDeployment(t.Context(), &schedulerv1.GetDeploymentRequest{Principal: other, Id: d.Id})),
			"logs":    second(p.client.ListLogs(t.Context(), &schedulerv1.ListLogsRequest{Principal: other, Id: d.Id})),
			"restart": second(p.client.RestartDeployment(t.Context(), &schedulerv1.RestartDeploymentRequest{Principal: other, Id: d.Id})),
			"stop":    second(p.client.StopDeployment(t.Context(), &schedulerv1.StopDeploymentRequest{Principal: other, Id: d.Id})),
			"destroy": second(p.client.DestroyDeployment(t.Context(), &schedulerv1.DestroyDeploymentRequest{Principal: other, Id: d.Id})),
		} {
			if code := problem.From(err).Code; err == nil || code != problem.CodeForbidden && code != problem.CodeNotFound && code != problem.CodeUnauthorized {
				t.Errorf("%s, %s: %v", name, call, err)
			}
		}
	}
	for _, id := range []string{"0198f000-0000-7000-8000-000000000000", "nonsense", "*", ">"} {
		_, err := p.client.GetDeployment(t.Context(), &schedulerv1.GetDeploymentRequest{Principal: owner(), Id: id})
		fault(t, err, problem.CodeNotFound)
		_, err = p.client.StopDeployment(t.Context(), &schedulerv1.StopDeploymentRequest{Principal: owner(), Id: id})
		fault(t, err, problem.CodeNotFound)
	}
}

func TestMembersOfAnOrganizationShareItsDeployments(t *testing.T) {
	t.Parallel()
	p := start(t)
	d := p.create(request("ours"))
	colleague := &identityv1.Principal{OrgId: "acme", OperatorId: "op2", AppId: "app2"}
	list, err := p.client.ListDeployments(t.Context(), &schedulerv1.ListDeploymentsRequest{Principal: colleague})
	if err != nil || len(list.GetDeployments()) != 1 || list.GetDeployments()[0].GetId() != d.Id || list.GetDeployments()[0].GetOperatorId() != "op1" {
		t.Errorf("a colleague sees %v, %v", list, err)
	}
	if _, err := p.client.ListLogs(t.Context(), &schedulerv1.ListLogsRequest{Principal: colleague, Id: d.Id}); err != nil {
		t.Errorf("a colleague reads the audit log: %v", err)
	}
	if _, err := p.client.StopDeployment(t.Context(), &schedulerv1.StopDeploymentRequest{Principal: colleague, Id: d.Id}); err != nil {
		t.Errorf("a colleague stops it: %v", err)
	}
	stranger := &identityv1.Principal{OrgId: "evil", OperatorId: "op1", AppId: "app1"}
	if list, err := p.client.ListDeployments(t.Context(), &schedulerv1.ListDeploymentsRequest{Principal: stranger}); err != nil || len(list.GetDeployments()) != 0 {
		t.Errorf("the same operator for another organization sees %v, %v", list, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestTheTiersLimitHolds(t *testing.T) {
	t.Parallel()
	p := start(t)
	results := make(chan error, 12)
	for i := range cap(results) {
		go func() {
			_, err := p.client.CreateDeployment(context.Background(), request(fmt.Sprintf("app-%d", i)))
			results <- err
		}()
	}
	made := 0
	for range cap(results) {
		if err := <-results; err == nil {
			made++
		} else {
			fault(t, err, problem.CodeLimit)
		}
	}
	if made != 3 {
		t.Fatalf("%d deployments on a tier that allows 3", made)
	}
}

func TestAnEnvironmentIsSealedAndOnlyItsNodeGetsIt(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.node("n1", 1024)
	in := request("secretive")
	in.EnvVars = map[string]string{"TOKEN": "s3cr3t-value"}
	d := p.create(in)
	i := p.desired(d.Id, nodev1.DesiredState_DESIRED_STATE_RUNNING)
	if !i.HasEnv {
		t.Fatal("the node is not told that there is an environment")
	}
	if got := p.secrets("n1", i); got.Error != "" || got.Env["TOKEN"] != "s3cr3t-value" {
		t.Fatalf("its node got %v", got)
	}
	if got := p.secrets("n2", i); got.Error == "" || len(got.Env) != 0 {
		t.Fatalf("another node got %v", got)
	}
	events, err := p.store.Load(t.Context(), subjects.Of("acme", subjects.Deployment, d.Id), 0)
	must(t, err)
	for _, e := range events {
		if strings.Contains(fmt.Sprint(e.Payload), "s3cr3t-value") {
			t.Fatalf("%s holds the value in clear", e.Type())
		}
	}
}

// secrets is what a node is told of an instance's environment.
func (p *platform) secrets(node string, i *nodev1.DesiredInstance) *nodev1.InstanceSecrets {
	p.t.Helper()
	reply, err := p.nc.Request(subjects.SecretsRequest(node, i.InstanceId), nil, 5*time.Second)
	must(p.t, err)
	var out nodev1.InstanceSecrets
	must(p.t, proto.Unmarshal(reply.Data, &out))
	return &out
}

func TestAPrincipalIsNeeded(t *testing.T) {
	t.Parallel()
	p := start(t)
	_, err := p.client.ListDeployments(t.Context(), &schedulerv1.ListDeploymentsRequest{}, grpc.WaitForReady(true))
	fault(t, err, problem.CodeUnauthorized)
}
