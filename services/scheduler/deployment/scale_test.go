package deployment_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

func scaleTo(count uint32, leaving ...string) *deploymentv1.ScaleRequested {
	return &deploymentv1.ScaleRequested{ReleaseId: "r1", Count: count, LeavingInstanceIds: leaving, InitiatedBy: "op"}
}

func placedAll(release string, instances ...string) *deploymentv1.DeploymentScheduled {
	e := &deploymentv1.DeploymentScheduled{ReleaseId: release}
	for n, id := range instances {
		e.Placements = append(e.Placements, &deploymentv1.Placement{InstanceId: id, NodeId: fmt.Sprint("n", n+1), ContainerName: "c-" + id})
	}
	return e
}

func boundAll(release string, instances ...string) *deploymentv1.RouteBound {
	return &deploymentv1.RouteBound{ReleaseId: release, InstanceIds: instances, Revision: 9}
}

func up(release string, instances ...string) []proto.Message {
	var events []proto.Message
	for _, id := range instances {
		events = append(events, started(release, id, 1), healthy(release, id, 1))
	}
	return events
}

// three is a deployment that has been scaled from one instance to three.
func three() *story {
	return live().and(scaleTo(3), placedAll("r1", "i2", "i3")).and(up("r1", "i2", "i3")...).
		and(boundAll("r1", "i1", "i2", "i3"), &deploymentv1.DeploymentScaled{ReleaseId: "r1", Count: 3})
}

func (s *story) step(t *testing.T) deployment.Step {
	t.Helper()
	return deployment.Advance(s.state, nil, s.now())
}

// carry takes the step that is due and returns its event.
func (s *story) carry(t *testing.T) proto.Message {
	t.Helper()
	step := s.step(t)
	if step.Command == nil {
		t.Fatalf("nothing is due: %+v", step)
	}
	e := s.decide(t, step.Command)
	if e == nil {
		t.Fatalf("%T decides nothing", step.Command)
	}
	s.and(e)
	return e
}

// runs are the instances that nodes are to keep running.
func (s *story) runs(state nodev1.DesiredState) []string {
	var ids []string
	for _, d := range deployment.Desired(s.state) {
		if d.DesiredState == state {
			ids = append(ids, d.InstanceId)
		}
	}
	slices.Sort(ids)
	return ids
}

const (
	keeps  = nodev1.DesiredState_DESIRED_STATE_RUNNING
	drains = nodev1.DesiredState_DESIRED_STATE_DRAINING
	goes   = nodev1.DesiredState_DESIRED_STATE_REMOVED
)

func (s *story) has(t *testing.T, state nodev1.DesiredState, want ...string) {
	t.Helper()
	if got := s.runs(state); !slices.Equal(got, want) {
		t.Errorf("%s are %v, want %v", state, got, want)
	}
}

func TestAScaleUpPlacesFurtherInstancesBesideTheOneThatServes(t *testing.T) {
	t.Parallel()
	s := live()
	s.and(s.decide(t, deployment.ScaleTo{Count: 3, By: "op"}))
	s.wants(t, deployment.Running, deployment.HealthHealthy, "being scaled to 3 instances")
	if step := s.step(t); step.NeedsPlacement != 2 || step.Command != nil {
		t.Fatalf("step after the request: %+v", step)
	}
	s.and(&deploymentv1.ImagePulled{ReleaseId: "r1", InstanceId: "i1", Digest: "sha256:1"})
	// There is room for one of the two; the other waits, and it is said why.
	s.and(s.decide(t, deployment.Schedule{ReleaseID: "r1", Placements: placedAll("r1", "i2").Placements}))
	if step := s.step(t); step.NeedsPlacement != 1 {
		t.Fatalf("step with one of two placed: %+v", step)
	}
	s.and(s.decide(t, deployment.Defer{ReleaseID: "r1", Reason: "No room."})).wants(t, deployment.Running, deployment.HealthHealthy, "No room.")
	s.and(s.decide(t, deployment.Schedule{ReleaseID: "r1", Placements: placedAll("r1", "i3").Placements}))
	if again := s.decide(t, deployment.Schedule{ReleaseID: "r1", Placements: placedAll("r1", "i4").Placements}); again != nil {
		t.Fatalf("a fourth instance is placed: %v", again)
	}
	if d := deployment.Desired(s.state)["n1.i3"]; d.Digest != "sha256:1" {
		t.Errorf("a further instance runs %q, not what the others do", d.Digest)
	}
	s.and(up("r1", "i2", "i3")...).and(boundAll("r1", "i1", "i2"))
	if step := s.step(t); step.Command != nil {
		t.Fatalf("it is said to be scaled before all are bound: %+v", step)
	}
	s.and(boundAll("r1", "i1", "i2", "i3"))
	if done, ok := s.carry(t).(*deploymentv1.DeploymentScaled); !ok || done.Count != 3 {
		t.Fatalf("it ends with %v", done)
	}
	s.wants(t, deployment.Running, deployment.HealthHealthy, "")
	s.has(t, keeps, "i1", "i2", "i3")
	if sum := deployment.Summary(s.state); sum.Instances != 3 || sum.InstancesHealthy != 3 {
		t.Errorf("readers are told of %d instances, %d healthy", sum.Instances, sum.InstancesHealthy)
	}
	if step := s.step(t); step != (deployment.Step{}) {
		t.Errorf("something is left to do: %+v", step)
	}
}

func TestAScaleDownDrainsOnlyWhatEveryEdgeHasLeft(t *testing.T) {
	t.Parallel()
	s := three()
	asked := s.decide(t, deployment.ScaleTo{Count: 1, By: "op"}).(*deploymentv1.ScaleRequested)
	// Two are on the node n1: the younger of them goes first.
	if !slices.Equal(asked.LeavingInstanceIds, []string{"i2", "i3"}) {
		t.Fatalf("%v leave", asked.LeavingInstanceIds)
	}
	s.and(asked)
	s.has(t, keeps, "i1", "i2", "i3")
	if step := s.step(t); step.Command != nil {
		t.Fatalf("something is done before the edges have left: %+v", step)
	}
	s.and(boundAll("r1", "i1"))
	if e, ok := s.carry(t).(*deploymentv1.InstancesRetired); !ok || !slices.Equal(e.InstanceIds, []string{"i2", "i3"}) {
		t.Fatalf("retired: %v", e)
	}
	s.has(t, keeps, "i1")
	s.has(t, drains, "i2", "i3")
	if done, ok := s.carry(t).(*deploymentv1.DeploymentScaled); !ok || done.Count != 1 {
		t.Fatalf("it ends with %v", done)
	}
}

func TestAScaleDownTakesTheSickFirst(t *testing.T) {
	t.Parallel()
	s := three().and(exited("r1", "i1", 1, true))
	asked := s.decide(t, deployment.ScaleTo{Count: 1}).(*deploymentv1.ScaleRequested)
	if !slices.Contains(asked.LeavingInstanceIds, "i1") {
		t.Fatalf("%v leave, and the one that has crashed stays", asked.LeavingInstanceIds)
	}
}

func TestAScaleDownWaitsWhileWhatStaysCannotServe(t *testing.T) {
	t.Parallel()
	s := three().and(scaleTo(1, "i2", "i3"), exited("r1", "i1", 1, true), boundAll("r1", "i2", "i3"))
	if step := s.step(t); step.Command != nil {
		t.Fatalf("%+v is due while nothing else serves", step.Command)
	}
	failed, ok := s.decide(t, deployment.Advance(s.state, nil, s.now().Add(time.Hour)).Command).(*deploymentv1.ScaleFailed)
	if !ok || failed.RestoredCount != 3 || len(failed.LeavingInstanceIds) != 0 || !strings.Contains(failed.Reason, "exited with code 3") {
		t.Fatalf("it ends with %v", failed)
	}
	s.and(failed)
	s.has(t, keeps, "i1", "i2", "i3")
	s.wants(t, deployment.Running, deployment.HealthHealthy, "it has 3 instances again")
	if step := s.step(t); step.Command != nil || step.NeedsPlacement != 0 {
		t.Errorf("something is due after the end: %+v", step)
	}
}

func TestAScaleUpThatFindsNoRoomEndsWithWhatThereWas(t *testing.T) {
	t.Parallel()
	s := live().and(scaleTo(3), placedAll("r1", "i2")).and(up("r1", "i2")...).and(boundAll("r1", "i1", "i2"))
	failed := s.decide(t, deployment.Advance(s.state, nil, s.now().Add(2*time.Hour)).Command).(*deploymentv1.ScaleFailed)
	if failed.Code != deployment.CodePlacementTimeout || failed.RestoredCount != 1 || !slices.Equal(failed.LeavingInstanceIds, []string{"i2"}) {
		t.Fatalf("it ends with %v", failed)
	}
	s.and(failed)
	s.has(t, keeps, "i1", "i2")
	s.and(boundAll("r1", "i1"))
	s.carry(t)
	s.has(t, keeps, "i1")
	s.has(t, drains, "i2")
}

func TestAScaleUpWhoseInstancesNeverAnswerRemovesThem(t *testing.T) {
	t.Parallel()
	s := live().and(scaleTo(2), placedAll("r1", "i2"), started("r1", "i2", 1))
	step := s.step(t)
	if step.Command != nil || step.Wake.IsZero() {
		t.Fatalf("before the deadline: %+v", step)
	}
	s.and(s.decide(t, deployment.Advance(s.state, nil, step.Wake).Command))
	s.has(t, keeps, "i1")
	s.has(t, goes, "i2")
	s.wants(t, deployment.Running, deployment.HealthHealthy, "The last scale failed, it has 1 instance again")
}

func TestAnotherScaleTakesThePlaceOfTheOneUnderWay(t *testing.T) {
	t.Parallel()
	s := live().and(scaleTo(3), placedAll("r1", "i2", "i3")).and(up("r1", "i2")...)
	back := s.decide(t, deployment.ScaleTo{Count: 1}).(*deploymentv1.ScaleRequested)
	if !slices.Equal(back.LeavingInstanceIds, []string{"i2", "i3"}) {
		t.Fatalf("%v leave", back.LeavingInstanceIds)
	}
	s.and(back)
	s.has(t, goes, "i3")
	// Up again before any edge has left: the one that was leaving stays.
	s.and(s.decide(t, deployment.ScaleTo{Count: 2}), boundAll("r1", "i1", "i2"))
	if done, ok := s.carry(t).(*deploymentv1.DeploymentScaled); !ok || done.Count != 2 {
		t.Fatalf("it ends with %v", done)
	}
	s.has(t, keeps, "i1", "i2")
}

func TestEveryReleaseHasAsManyInstancesAsAreWanted(t *testing.T) {
	t.Parallel()
	s := three().and(restarted())
	if step := s.step(t); step.NeedsPlacement != 3 {
		t.Fatalf("the restart places %d", step.NeedsPlacement)
	}
	s.and(placedAll("r2", "j1", "j2", "j3")).and(up("r2", "j1", "j2")...).and(started("r2", "j3", 1), boundAll("r2", "j1", "j2"))
	if step := s.step(t); step.Command != nil {
		t.Fatalf("it is done with two of three: %+v", step)
	}
	s.and(healthy("r2", "j3", 1), boundAll("r2", "j1", "j2", "j3"))
	s.carry(t)
	s.has(t, keeps, "j1", "j2", "j3")
	s.has(t, drains, "i1", "i2", "i3")
	// Stopped and begun again it has them still.
	s.and(&deploymentv1.StopRequested{}, &deploymentv1.DeploymentStopped{})
	again := s.decide(t, deployment.Restart{ReleaseID: "r3"})
	if s.and(again); s.step(t).NeedsPlacement != 3 {
		t.Errorf("after a stop it places %d", s.step(t).NeedsPlacement)
	}
}

func TestAReleaseOfWhichOneInstanceNeverAnswersFailsWhole(t *testing.T) {
	t.Parallel()
	s := three().and(restarted(), placedAll("r2", "j1", "j2", "j3")).and(up("r2", "j1", "j2")...).and(started("r2", "j3", 1))
	failed := s.decide(t, deployment.Advance(s.state, nil, s.step(t).Wake).Command).(*deploymentv1.ReleaseFailed)
	if failed.Code != deployment.CodeHealthTimeout || !strings.HasPrefix(failed.Reason, "1 of 3 instances: ") {
		t.Fatalf("failed with %s: %s", failed.Code, failed.Reason)
	}
	s.and(failed)
	s.has(t, keeps, "i1", "i2", "i3")
}

func TestACrashOfOneOfManyIsNoRollout(t *testing.T) {
	t.Parallel()
	s := three().and(exited("r1", "i2", 1, true))
	s.wants(t, deployment.Running, deployment.HealthHealthy, "exited with code 3")
	if sum := deployment.Summary(s.state); sum.InstancesHealthy != 2 || sum.Instances != 3 {
		t.Errorf("readers are told of %d of %d", sum.InstancesHealthy, sum.Instances)
	}
	if step := s.step(t); step.Command != nil || step.NeedsPlacement != 0 {
		t.Errorf("something is due: %+v", step)
	}
}

func TestALostNodeTakesOnlyItsOwnOfManyInstances(t *testing.T) {
	t.Parallel()
	s := three()
	step := deployment.Advance(s.state, deployment.Nodes{"n2": deployment.NodeLost}, s.now())
	if step.Move == nil || !slices.Equal(step.Move.Replace, []string{"i3"}) {
		t.Fatalf("moved: %+v", step.Move)
	}
	s.and(&deploymentv1.InstancesRescheduled{ReleaseId: "r1", Placements: at("i4", "n3"), ReplacedInstanceIds: []string{"i3"}, NodeLost: true})
	s.has(t, keeps, "i1", "i2", "i4")
	s.has(t, goes, "i3")
}

func TestWhatCannotBeScaledIsRefusedWithASentence(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		s     *story
		count int
		says  string
	}{
		{"to nothing", live(), 0, "Stop the deployment"},
		{"while a rollout is under way", live().and(restarted()), 2, "a rollout is under way"},
		{"before its first rollout has ended", given(requested()), 2, "a rollout is under way"},
		{"stopped", live().and(&deploymentv1.StopRequested{}, &deploymentv1.DeploymentStopped{}), 2, "Restart it first"},
		{"being stopped", live().and(&deploymentv1.StopRequested{}), 2, "stopped"},
		{"destroyed", live().and(&deploymentv1.DestroyRequested{}), 2, "destroyed"},
	} {
		e, err := deployment.Decide(tc.s.state, deployment.ScaleTo{Count: tc.count}, tc.s.now())
		if e != nil || problem.From(err).Code != problem.CodeInvalidState || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, %v", tc.name, e, err)
		}
	}
	if e, err := deployment.Decide(live().state, deployment.ScaleTo{Count: 1}, t0); e != nil || err != nil {
		t.Errorf("to what there is: %v, %v", e, err)
	}
	for _, c := range []deployment.Command{deployment.Restart{}, deployment.Rollback{}} {
		_, err := deployment.Decide(live().and(scaleTo(2)).state, c, t0)
		if problem.From(err).Code != problem.CodeInvalidState || !strings.Contains(err.Error(), "being scaled") {
			t.Errorf("%T while it is being scaled: %v", c, err)
		}
	}
}
