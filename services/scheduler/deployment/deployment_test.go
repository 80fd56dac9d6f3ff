package deployment_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

var t0 = time.Date(2026, 5, 21, 10, 0, 0, 0, time.UTC)

// story folds events a second apart.
type story struct {
	state deployment.State
	seq   uint64
}

func given(events ...proto.Message) *story { return (&story{}).and(events...) }

func (s *story) and(events ...proto.Message) *story {
	for _, e := range events {
		s.seq++
		s.state = deployment.Evolve(s.state, eventstore.Recorded{Sequence: s.seq,
			Event: eventstore.Event{Payload: e, Time: t0.Add(time.Duration(s.seq) * time.Second)}})
	}
	return s
}

func (s *story) now() time.Time { return t0.Add(time.Duration(s.seq) * time.Second) }

func (s *story) decide(t *testing.T, c deployment.Command) proto.Message {
	t.Helper()
	e, err := deployment.Decide(s.state, c, s.now())
	if err != nil {
		t.Fatalf("deciding %T: %v", c, err)
	}
	return e
}

func deadlines() *deploymentv1.Deadlines {
	return &deploymentv1.Deadlines{Placement: durationpb.New(time.Hour), Start: durationpb.New(5 * time.Minute),
		Healthy: durationpb.New(time.Minute), Stop: durationpb.New(30 * time.Second),
		Drain: durationpb.New(5 * time.Second), Grace: durationpb.New(10 * time.Second)}
}

func requested() *deploymentv1.DeploymentRequested {
	return &deploymentv1.DeploymentRequested{DeploymentId: "d1", OrgId: "acme", OperatorId: "op", AppId: "app",
		Tier:      &deploymentv1.Tier{Id: "t", Slug: "buddo-starter", MemoryLimitMb: 256, CpuLimitMillicores: 250},
		Subdomain: "my-app", Host: "my-app.apps.localhost",
		Release: &deploymentv1.Release{Id: "r1", Number: 1, Image: "ghcr.io/a/b", Port: 3000, ContainerName: "my-app-abc123", Deadlines: deadlines()}}
}

func scheduled(release, instance string) *deploymentv1.DeploymentScheduled {
	return &deploymentv1.DeploymentScheduled{ReleaseId: release,
		Placements: []*deploymentv1.Placement{{InstanceId: instance, NodeId: "n1", ContainerName: "c-" + instance}}}
}

func started(release, instance string, attempt uint32) *deploymentv1.ContainerStarted {
	return &deploymentv1.ContainerStarted{ReleaseId: release, InstanceId: instance, NodeId: "n1", Attempt: attempt,
		ContainerId: fmt.Sprint(instance, attempt), Address: "10.0.0.2:3000", StartedAt: timestamppb.New(t0)}
}

func startFailed(attempt uint32) *deploymentv1.ContainerStartFailed {
	return &deploymentv1.ContainerStartFailed{ReleaseId: "r1", InstanceId: "i1", Attempt: attempt, Reason: "no such file"}
}

func healthy(release, instance string, attempt uint32) *deploymentv1.InstanceHealthy {
	return &deploymentv1.InstanceHealthy{ReleaseId: release, InstanceId: instance, Attempt: attempt}
}

func exited(release, instance string, attempt uint32, again bool) *deploymentv1.ContainerExited {
	e := &deploymentv1.ContainerExited{ReleaseId: release, InstanceId: instance, Attempt: attempt, ExitCode: 3, LastLines: []string{"boom"}}
	if again {
		e.RestartAt = timestamppb.New(t0.Add(time.Minute))
	}
	return e
}

func bound(release, instance string) *deploymentv1.RouteBound {
	return &deploymentv1.RouteBound{ReleaseId: release, InstanceIds: []string{instance}, Hosts: []string{"my-app.apps.localhost"}, Revision: 7}
}

func removed(release, instance string) *deploymentv1.ContainerRemoved {
	return &deploymentv1.ContainerRemoved{ReleaseId: release, InstanceId: instance, NodeId: "n1"}
}

// live is a deployment whose first release serves.
func live() *story {
	return given(requested(), scheduled("r1", "i1"), started("r1", "i1", 1), healthy("r1", "i1", 1), bound("r1", "i1"),
		&deploymentv1.DeploymentRunning{ReleaseId: "r1"})
}

func restarted() *deploymentv1.RestartRequested {
	r := requested().Release
	r.Id, r.Number, r.ContainerName = "r2", 2, "my-app-def456"
	return &deploymentv1.RestartRequested{Release: r, InitiatedBy: "app"}
}

func (s *story) wants(t *testing.T, status deployment.Status, health deployment.Health, reason string) {
	t.Helper()
	if s.state.Status != status || s.state.HealthStatus() != health {
		t.Errorf("it is %s and %s, want %s and %s", s.state.Status, s.state.HealthStatus(), status, health)
	}
	if !strings.Contains(s.state.Reason, reason) || reason == "" && s.state.Reason != "" {
		t.Errorf("its reason is %q, want it to say %q", s.state.Reason, reason)
	}
}

func TestADeployGoesStepByStepToRunning(t *testing.T) {
	t.Parallel()
	s := given(requested())
	s.wants(t, deployment.Pending, deployment.HealthUnknown, "")
	if step := deployment.Advance(s.state, nil, s.now()); step.NeedsPlacement != 1 || step.Wake != t0.Add(time.Second+time.Hour) {
		t.Fatalf("step after the request: %+v", step)
	}
	s.and(s.decide(t, deployment.Schedule{ReleaseID: "r1", Placements: scheduled("r1", "i1").Placements}))
	s.wants(t, deployment.Deploying, deployment.HealthUnknown, "")
	s.and(started("r1", "i1", 1))
	s.wants(t, deployment.Deploying, deployment.HealthStarting, "")
	s.and(healthy("r1", "i1", 1))
	if step := deployment.Advance(s.state, nil, s.now()); step.Command != nil {
		t.Fatalf("running before the route is bound: %+v", step)
	}
	s.and(bound("r1", "i1"))
	step := deployment.Advance(s.state, nil, s.now())
	if step.Command != (deployment.MarkRunning{ReleaseID: "r1"}) {
		t.Fatalf("step after RouteBound: %+v", step)
	}
	s.and(s.decide(t, step.Command))
	s.wants(t, deployment.Running, deployment.HealthHealthy, "")
	if step := deployment.Advance(s.state, nil, s.now()); step != (deployment.Step{}) {
		t.Fatalf("a running deployment has something to do: %+v", step)
	}
}

func TestARestartKeepsTheOldInstanceUntilTheNewOneIsBound(t *testing.T) {
	t.Parallel()
	s := live().and(restarted(), scheduled("r2", "i2"), started("r2", "i2", 1), healthy("r2", "i2", 1))
	s.wants(t, deployment.Deploying, deployment.HealthHealthy, "")
	if d := deployment.Desired(s.state)["n1.i1"]; d.DesiredState != nodev1.DesiredState_DESIRED_STATE_RUNNING {
		t.Fatalf("the old instance is %s before RouteBound", d.DesiredState)
	}
	s.and(bound("r2", "i2"))
	running := s.decide(t, deployment.Advance(s.state, nil, s.now()).Command).(*deploymentv1.DeploymentRunning)
	if len(running.RetiredInstanceIds) != 1 || running.RetiredInstanceIds[0] != "i1" {
		t.Fatalf("retired: %v", running.RetiredInstanceIds)
	}
	s.and(running)
	desired := deployment.Desired(s.state)
	if desired["n1.i1"].DesiredState != nodev1.DesiredState_DESIRED_STATE_DRAINING || desired["n1.i2"].DesiredState != nodev1.DesiredState_DESIRED_STATE_RUNNING {
		t.Fatalf("desired after the swap: %v", desired)
	}
	if d := desired["n1.i2"]; d.LastAttempt != 1 || d.LastContainerId != s.state.Instances["i2"].ContainerID || d.LastContainerId == "" {
		t.Fatalf("the node is told of the start in the log as %d %q", d.LastAttempt, d.LastContainerId)
	}
	s.and(removed("r1", "i1"))
	if d := deployment.Desired(s.state); len(d) != 1 {
		t.Fatalf("desired after the old one went: %v", d)
	}
}

func TestAReleaseThatNeverGetsHealthyFailsByItsDeadlineAndTheOldOneServes(t *testing.T) {
	t.Parallel()
	s := live().and(restarted(), scheduled("r2", "i2"), started("r2", "i2", 1))
	step := deployment.Advance(s.state, nil, s.now())
	if step.Command != nil || step.Wake != s.now().Add(time.Minute) {
		t.Fatalf("step before the deadline: %+v", step)
	}
	step = deployment.Advance(s.state, nil, step.Wake)
	failed := s.decide(t, step.Command).(*deploymentv1.ReleaseFailed)
	if failed.Code != deployment.CodeHealthTimeout || !strings.Contains(failed.Reason, "port 3000") {
		t.Fatalf("failed with %s: %s", failed.Code, failed.Reason)
	}
	s.and(failed)
	s.wants(t, deployment.Running, deployment.HealthHealthy, "former release goes on serving")
	d := deployment.Desired(s.state)
	if d["n1.i1"].DesiredState != nodev1.DesiredState_DESIRED_STATE_RUNNING || d["n1.i2"].DesiredState != nodev1.DesiredState_DESIRED_STATE_REMOVED {
		t.Fatalf("desired: %v", d)
	}
}

func TestAFirstReleaseThatFailsLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		events []proto.Message
		code   string
		says   string
	}{
		{"the image is not there", []proto.Message{&deploymentv1.ImagePullFailed{ReleaseId: "r1", InstanceId: "i1", Image: "ghcr.io/a/b", Reason: "manifest unknown", Final: true}}, deployment.CodeImagePull, "Manifest unknown."},
		{"it cannot be started", []proto.Message{startFailed(1), startFailed(2), startFailed(3)}, deployment.CodeStartFailed, "could not be started: No such file."},
		{"it exits at once", []proto.Message{started("r1", "i1", 1), exited("r1", "i1", 1, false)}, deployment.CodeCrashed, "exited with code 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := given(requested(), scheduled("r1", "i1")).and(tc.events...)
			failed := s.decide(t, deployment.Advance(s.state, nil, s.now()).Command).(*deploymentv1.ReleaseFailed)
			if failed.Code != tc.code {
				t.Fatalf("code %s, want %s", failed.Code, tc.code)
			}
			s.and(failed)
			s.wants(t, deployment.Stopped, deployment.HealthUnknown, tc.says)
			if s.state.NamesHeld {
				t.Error("its names are still held")
			}
			s.and(removed("r1", "i1"))
			if d := deployment.Desired(s.state); len(d) != 0 {
				t.Errorf("still desired: %v", d)
			}
		})
	}
}

func TestACrashOfTheLiveReleaseIsToldAndGetsWellAgain(t *testing.T) {
	t.Parallel()
	s := live().and(exited("r1", "i1", 1, true))
	s.wants(t, deployment.Running, deployment.HealthUnhealthy, "exited with code 3. It is being started again.")
	if step := deployment.Advance(s.state, nil, s.now()); step != (deployment.Step{}) {
		t.Fatalf("the scheduler acts on a crash that the node handles: %+v", step)
	}
	s.and(started("r1", "i1", 2), healthy("r1", "i1", 1))
	s.wants(t, deployment.Running, deployment.HealthUnhealthy, "exited")
	s.and(healthy("r1", "i1", 2))
	s.wants(t, deployment.Running, deployment.HealthHealthy, "")
}

func TestOutOfMemoryIsToldApart(t *testing.T) {
	t.Parallel()
	e := exited("r1", "i1", 1, true)
	e.OomKilled, e.ExitCode = true, 137
	live().and(e).wants(t, deployment.Running, deployment.HealthUnhealthy, "ran out of memory")
}

func TestFactsOfAnEarlierAttemptChangeNothing(t *testing.T) {
	t.Parallel()
	s := live().and(exited("r1", "i1", 1, true), started("r1", "i1", 2), healthy("r1", "i1", 2))
	before := deployment.Summary(s.state)
	s.and(exited("r1", "i1", 1, true), started("r1", "i1", 1), exited("r0", "i1", 9, true), exited("r1", "gone", 9, true),
		&deploymentv1.InstanceUnhealthy{ReleaseId: "r1", InstanceId: "i1", Attempt: 1})
	after := deployment.Summary(s.state)
	after.Sequence = before.Sequence
	if !proto.Equal(before, after) {
		t.Fatalf("changed from\n%v\nto\n%v", before, after)
	}
}

func TestStopRemovesThenStopsAndARestartBringsItBack(t *testing.T) {
	t.Parallel()
	s := live()
	s.and(s.decide(t, deployment.Stop{By: "app"}))
	s.wants(t, deployment.Running, deployment.HealthHealthy, "being stopped")
	if step := deployment.Advance(s.state, nil, s.now()); step.Command != nil || step.Wake.IsZero() {
		t.Fatalf("stopped before anything was removed: %+v", step)
	}
	s.and(removed("r1", "i1"))
	if step := deployment.Advance(s.state, nil, s.now()); step.Command != nil {
		t.Fatalf("stopped while the route stands: %+v", step)
	}
	s.and(&deploymentv1.RouteRemoved{})
	s.and(s.decide(t, deployment.Advance(s.state, nil, s.now()).Command))
	s.wants(t, deployment.Stopped, deployment.HealthUnknown, "")
	if !s.state.NamesHeld {
		t.Fatal("a stopped deployment lost its names")
	}
	again := s.decide(t, deployment.Restart{ReleaseID: "r2", ContainerName: "my-app-2", By: "app"}).(*deploymentv1.RestartRequested)
	if again.Release.Number != 2 || again.Release.Image != "ghcr.io/a/b" {
		t.Fatalf("restarted with %v", again.Release)
	}
	s.and(again)
	s.wants(t, deployment.Deploying, deployment.HealthUnknown, "")
}

func TestAStopOrDestroyEndsByItsDeadlineEvenWhenItsNodeIsGone(t *testing.T) {
	t.Parallel()
	for _, c := range []deployment.Command{deployment.Stop{}, deployment.Destroy{}} {
		s := live()
		s.and(s.decide(t, c))
		step := deployment.Advance(s.state, nil, s.now().Add(30*time.Second))
		if step.Command == nil {
			t.Fatalf("%T never ends", c)
		}
		s.and(s.decide(t, step.Command))
		if d := deployment.Desired(s.state)["n1.i1"]; d.GetDesiredState() != nodev1.DesiredState_DESIRED_STATE_REMOVED {
			t.Errorf("%T: the node would keep the instance when it returns: %v", c, d)
		}
	}
}

func TestCommandsThatTheStateForbids(t *testing.T) {
	t.Parallel()
	stopping := live()
	stopping.and(stopping.decide(t, deployment.Stop{}))
	stopped := given(stopping.history(t)...).and(removed("r1", "i1"), &deploymentv1.DeploymentStopped{})
	destroyed := live().and(&deploymentv1.DestroyRequested{}, removed("r1", "i1"), &deploymentv1.DeploymentDestroyed{})
	for _, tc := range []struct {
		name string
		s    *story
		c    deployment.Command
		says string
	}{
		{"restart while it is being deployed", given(requested()), deployment.Restart{}, "rollout is under way"},
		{"restart while it stops", stopping, deployment.Restart{}, "being stopped"},
		{"stop twice", stopped, deployment.Stop{}, "stopped already"},
		{"restart what is destroyed", destroyed, deployment.Restart{}, "is destroyed"},
		{"stop what is destroyed", destroyed, deployment.Stop{}, "is destroyed"},
		{"destroy twice", destroyed, deployment.Destroy{}, "destroyed already"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := deployment.Decide(tc.s.state, tc.c, t0)
			var p *problem.Error
			if !errors.As(err, &p) || p.Code != problem.CodeInvalidState || !strings.Contains(p.Message, tc.says) {
				t.Fatalf("got %v, want invalid_state that says %q", err, tc.says)
			}
		})
	}
}

// history is the running story up to a stop request.
func (s *story) history(t *testing.T) []proto.Message {
	t.Helper()
	return []proto.Message{requested(), scheduled("r1", "i1"), started("r1", "i1", 1), healthy("r1", "i1", 1), bound("r1", "i1"),
		&deploymentv1.DeploymentRunning{ReleaseId: "r1"}, &deploymentv1.StopRequested{}}
}

func TestCommandsOfTheSchedulerThatComeTooLateDoNothing(t *testing.T) {
	t.Parallel()
	s := live()
	for _, c := range []deployment.Command{
		deployment.Schedule{ReleaseID: "r1"}, deployment.Defer{ReleaseID: "r0", Reason: "full"}, deployment.MarkRunning{ReleaseID: "r1"},
		deployment.FailRelease{ReleaseID: "r1"}, deployment.MarkStopped{}, deployment.MarkDestroyed{},
	} {
		if e := s.decide(t, c); e != nil {
			t.Errorf("%T gave %v", c, e)
		}
	}
}
