package scheduler_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
)

// begin plays node-agent and health for an instance.
func (p *platform) begin(d *nodev1.DesiredInstance) {
	p.t.Helper()
	p.record(d, &deploymentv1.ImagePulled{ReleaseId: d.ReleaseId, InstanceId: d.InstanceId, Digest: "sha256:" + d.ReleaseId},
		&deploymentv1.ContainerStarted{ReleaseId: d.ReleaseId, InstanceId: d.InstanceId, NodeId: d.NodeId, Attempt: 1, ContainerId: "c-" + d.InstanceId, Address: "10.0.0.2:3000"},
		&deploymentv1.InstanceHealthy{ReleaseId: d.ReleaseId, InstanceId: d.InstanceId, Attempt: 1})
}

// serving makes a deployment that runs.
func (p *platform) serving(subdomain string) (*schedulerv1.Deployment, *nodev1.DesiredInstance) {
	p.t.Helper()
	d := p.create(request(subdomain))
	i := p.desired(d.Id, nodev1.DesiredState_DESIRED_STATE_RUNNING)
	p.begin(i)
	p.record(i, &deploymentv1.RouteBound{ReleaseId: i.ReleaseId, InstanceIds: []string{i.InstanceId}})
	p.status(d.Id, "running")
	return d, i
}

// wanted are the instances that nodes are to run.
func (p *platform) wanted(id string) []*nodev1.DesiredInstance {
	p.t.Helper()
	v, err := view.Open(p.t.Context(), p.js, subjects.BucketDesired, func() *nodev1.DesiredInstance { return &nodev1.DesiredInstance{} })
	must(p.t, err)
	entries, err := v.Snapshot(p.t.Context(), ">")
	must(p.t, err)
	var all []*nodev1.DesiredInstance
	for _, e := range entries {
		if e.Value.DeploymentId == id && e.Value.DesiredState == nodev1.DesiredState_DESIRED_STATE_RUNNING {
			all = append(all, e.Value)
		}
	}
	return all
}

// instances waits until that many are to run and returns them.
func (p *platform) instances(id string, count int) []*nodev1.DesiredInstance {
	p.t.Helper()
	var all []*nodev1.DesiredInstance
	within(p.t, fmt.Sprintf("%s has %d instances", id, count), func() bool {
		all = p.wanted(id)
		return len(all) == count
	})
	return all
}

func TestADeploymentIsScaledUpAndDownAcrossNodes(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.node("n1", 1024)
	p.node("n2", 1024)
	d, first := p.serving("my-app")
	out, err := p.client.ScaleDeployment(t.Context(), &schedulerv1.ScaleDeploymentRequest{Principal: owner(), Id: d.Id, Count: 3})
	must(t, err)
	if out.Deployment.Instances != 3 || out.Deployment.Status != "running" {
		t.Fatalf("scaled: %v", out.Deployment)
	}
	all, nodes, ids := p.instances(d.Id, 3), map[string]int{}, []string{}
	for _, i := range all {
		nodes[i.NodeId]++
		ids = append(ids, i.InstanceId)
		if i.InstanceId == first.InstanceId {
			continue
		}
		if i.Digest != "sha256:"+first.ReleaseId {
			t.Errorf("another instance is of %q", i.Digest)
		}
		p.begin(i)
	}
	if nodes["n1"] == 0 || nodes["n2"] == 0 {
		t.Errorf("they are on %v", nodes)
	}
	p.record(first, &deploymentv1.RouteBound{ReleaseId: first.ReleaseId, InstanceIds: ids})
	within(t, "all three are there for readers", func() bool {
		row := p.get(d.Id)
		return row.Instances == 3 && row.InstancesHealthy == 3 && row.StatusReason == ""
	})
	_, err = p.client.ScaleDeployment(t.Context(), &schedulerv1.ScaleDeploymentRequest{Principal: owner(), Id: d.Id, Count: 1})
	must(t, err)
	kept := ""
	for _, e := range p.events(d.Id) {
		if s, ok := e.(*deploymentv1.ScaleRequested); ok && s.Count == 1 {
			for _, id := range ids {
				if !strings.Contains(strings.Join(s.LeavingInstanceIds, " "), id) {
					kept = id
				}
			}
		}
	}
	p.record(first, &deploymentv1.RouteBound{ReleaseId: first.ReleaseId, InstanceIds: []string{kept}})
	if left := p.instances(d.Id, 1); left[0].InstanceId != kept {
		t.Errorf("%s stays, want %s", left[0].InstanceId, kept)
	}
	within(t, "the audit log has both", func() bool {
		logs, err := p.client.ListLogs(t.Context(), &schedulerv1.ListLogsRequest{Principal: owner(), Id: d.Id})
		must(t, err)
		told := ""
		for _, l := range logs.Logs {
			if l.Action == "scale" {
				told += fmt.Sprintf("%s by %s from %v to %v; ", l.Status, l.InitiatedBy, l.Details.AsMap()["from"], l.Details.AsMap()["to"])
			}
		}
		return told == "completed by app1 from 1 to 3; completed by app1 from 3 to 1; "
	})
}

func (p *platform) events(id string) []proto.Message {
	p.t.Helper()
	all, err := p.store.Load(p.t.Context(), subjects.Of("acme", subjects.Deployment, id), 0)
	must(p.t, err)
	var out []proto.Message
	for _, e := range all {
		out = append(out, e.Payload)
	}
	return out
}

func TestADeploymentIsRolledBackToTheImageItHad(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.node("n1", 2048)
	d, first := p.serving("my-app")
	_, err := p.client.RollbackDeployment(t.Context(), &schedulerv1.RollbackDeploymentRequest{Principal: owner(), Id: d.Id})
	fault(t, err, problem.CodeInvalidState)

	_, err = p.client.RestartDeployment(t.Context(), &schedulerv1.RestartDeploymentRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	p.roll(d.Id, first.ReleaseId)
	nine := int64(9)
	_, err = p.client.RollbackDeployment(t.Context(), &schedulerv1.RollbackDeploymentRequest{Principal: owner(), Id: d.Id, ReleaseNumber: &nine})
	fault(t, err, problem.CodeInvalidState)
	nine = 0
	_, err = p.client.RollbackDeployment(t.Context(), &schedulerv1.RollbackDeploymentRequest{Principal: owner(), Id: d.Id, ReleaseNumber: &nine})
	fault(t, err, problem.CodeValidation)

	out, err := p.client.RollbackDeployment(t.Context(), &schedulerv1.RollbackDeploymentRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	if out.RolledBackTo != 1 || out.Deployment.ReleaseNumber != 3 || out.Deployment.Status != "deploying" {
		t.Fatalf("rolled back to %d: %v", out.RolledBackTo, out.Deployment)
	}
	third := p.roll(d.Id, first.ReleaseId)
	if third.Digest != "sha256:"+first.ReleaseId {
		t.Errorf("the third release is of %q, not what the first was", third.Digest)
	}
	releases, err := p.client.ListReleases(t.Context(), &schedulerv1.ListReleasesRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	told := ""
	for _, r := range releases.Releases {
		told += fmt.Sprintf("%d %s by %s from %d; ", r.Number, r.Status, r.CreatedBy, r.RolledBackTo)
	}
	if want := "3 active by app1 from 1; 2 superseded by app1 from 0; 1 superseded by app1 from 0; "; told != want {
		t.Errorf("the releases are %s, want %s", told, want)
	}
}

// roll plays a rollout to its end and returns the new instance.
func (p *platform) roll(id, but string) *nodev1.DesiredInstance {
	p.t.Helper()
	var next *nodev1.DesiredInstance
	number := p.get(id).ReleaseNumber
	within(p.t, "the new release is placed", func() bool {
		for _, i := range p.wanted(id) {
			if i.LastAttempt == 0 && i.ReleaseId != but {
				next = i
			}
		}
		return next != nil
	})
	p.begin(next)
	p.record(next, &deploymentv1.RouteBound{ReleaseId: next.ReleaseId, InstanceIds: []string{next.InstanceId}})
	within(p.t, "it runs", func() bool { d := p.get(id); return d.Status == "running" && d.ReleaseNumber == number })
	return next
}

func TestAnAppIsFoundByItsNameInItsOwnOrganizationOnly(t *testing.T) {
	t.Parallel()
	p := start(t)
	d := p.create(request("my-app"))
	resolve := func(who *identityv1.Principal, app string) (*schedulerv1.Deployment, error) {
		out, err := p.client.ResolveApp(t.Context(), &schedulerv1.ResolveAppRequest{Principal: who, App: app})
		return out.GetDeployment(), err
	}
	for _, app := range []string{"my-app", d.Id} {
		if got, err := resolve(owner(), app); err != nil || got.Id != d.Id {
			t.Errorf("%s is %v, %v", app, got, err)
		}
	}
	stranger := &identityv1.Principal{OrgId: "other", OperatorId: "op2", AppId: "app2"}
	_, err := resolve(stranger, "my-app")
	theirs := fault(t, err, problem.CodeNotFound)
	_, err = resolve(stranger, "nobodys")
	if nobodys := fault(t, err, problem.CodeNotFound); nobodys.Message != theirs.Message {
		t.Errorf("another's app is told from none: %q, %q", theirs.Message, nobodys.Message)
	}
	_, err = resolve(stranger, d.Id)
	fault(t, err, problem.CodeForbidden)
	for _, app := range []string{"", strings.Repeat("a", 5000), "a.b\x00>", "*"} {
		_, err = resolve(owner(), app)
		fault(t, err, problem.CodeNotFound)
	}
}

func TestCountsBeyondTheBoundAreRefused(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.node("n1", 1024)
	d, _ := p.serving("my-app")
	for count, code := range map[int64]string{11: problem.CodeValidation, -1: problem.CodeValidation, 1 << 40: problem.CodeValidation, 0: problem.CodeInvalidState} {
		_, err := p.client.ScaleDeployment(t.Context(), &schedulerv1.ScaleDeploymentRequest{Principal: owner(), Id: d.Id, Count: count})
		fault(t, err, code)
	}
}
