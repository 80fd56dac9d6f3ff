package deployment_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

var (
	lost     = deployment.Nodes{"n1": deployment.NodeLost}
	draining = deployment.Nodes{"n1": deployment.NodeDraining}
)

func at(instance, node string) []*deploymentv1.Placement {
	return []*deploymentv1.Placement{{InstanceId: instance, NodeId: node, ContainerName: "c-" + instance}}
}

// moves carries out the move that is due, onto the instance and node given.
func (s *story) moves(t *testing.T, nodes deployment.Nodes, instance, node string) *deploymentv1.InstancesRescheduled {
	t.Helper()
	m := deployment.Advance(s.state, nodes, s.now()).Move
	if m == nil {
		t.Fatal("nothing is to be moved")
	}
	e := s.decide(t, deployment.Reschedule{ReleaseID: m.ReleaseID, NodeLost: m.NodeLost, Reason: m.Reason,
		Replaced: slices.Concat(m.Replace, m.Gone), Placements: at(instance, node)})
	s.and(e)
	return e.(*deploymentv1.InstancesRescheduled)
}

func (s *story) desired(t *testing.T, want map[string]nodev1.DesiredState) {
	t.Helper()
	got := map[string]nodev1.DesiredState{}
	for key, d := range deployment.Desired(s.state) {
		got[key] = d.DesiredState
	}
	for key := range got {
		if got[key] != want[key] {
			t.Errorf("%s is %s, want %s", key, got[key], want[key])
		}
	}
	if len(got) != len(want) {
		t.Errorf("desired is %v, want %v", got, want)
	}
}

const (
	run   = nodev1.DesiredState_DESIRED_STATE_RUNNING
	drain = nodev1.DesiredState_DESIRED_STATE_DRAINING
	gone  = nodev1.DesiredState_DESIRED_STATE_REMOVED
)

type wish = map[string]nodev1.DesiredState

func (s *story) quiet(t *testing.T, nodes deployment.Nodes) {
	t.Helper()
	if step := deployment.Advance(s.state, nodes, s.now()); step.Command != nil || step.Move != nil || step.NeedsPlacement != 0 {
		t.Fatalf("there is something to do: %+v", step)
	}
}

func TestInstancesOfALostNodeStartElsewhereAtOnce(t *testing.T) {
	t.Parallel()
	s := live().and(&deploymentv1.ImagePulled{ReleaseId: "r1", InstanceId: "i1", Digest: "sha256:1"})
	e := s.moves(t, lost, "i2", "n2")
	if !e.NodeLost || !slices.Equal(e.ReplacedInstanceIds, []string{"i1"}) || !strings.Contains(e.Reason, "n1") {
		t.Fatalf("rescheduled with %v", e)
	}
	s.desired(t, wish{"n1.i1": gone, "n2.i2": run})
	if d := deployment.Desired(s.state)["n2.i2"]; d.MaxAttempts != 0 || d.Digest != "sha256:1" || d.ContainerName != "c-i2" {
		t.Errorf("the stand-in is not to run as the live release does: %v", d)
	}
	s.wants(t, deployment.Running, deployment.HealthUnhealthy, "n1 is lost: it has not been heard of. It is being started on another node.")
	s.quiet(t, lost)
	s.and(started("r1", "i2", 1), healthy("r1", "i2", 1), bound("r1", "i2"))
	s.wants(t, deployment.Running, deployment.HealthHealthy, "")
	s.quiet(t, lost)
	if d := deployment.Summary(s.state); d.NodeId != "n2" || d.ContainerName != "c-i2" {
		t.Errorf("readers are shown %s on %s", d.ContainerName, d.NodeId)
	}
	s.and(removed("r1", "i1"))
	s.desired(t, wish{"n2.i2": run})
}

func TestWhatAReturningNodeTellsOfReplacedInstancesIsStale(t *testing.T) {
	t.Parallel()
	s := live()
	s.moves(t, lost, "i2", "n2")
	before := deployment.Summary(s.state)
	s.and(started("r1", "i1", 1), healthy("r1", "i1", 1), started("r1", "i1", 2), healthy("r1", "i1", 2), bound("r1", "i1"),
		exited("r1", "i1", 2, true), &deploymentv1.ImagePullFailed{ReleaseId: "r1", InstanceId: "i1", Final: true, Reason: "no"})
	after := deployment.Summary(s.state)
	after.Sequence = before.Sequence
	if !proto.Equal(before, after) {
		t.Fatalf("changed from\n%v\nto\n%v", before, after)
	}
	s.desired(t, wish{"n1.i1": gone, "n2.i2": run})
	if targets := deployment.Targets(s.state); len(targets) != 0 {
		t.Errorf("health is to probe %v", targets)
	}
}

func TestADrainedInstanceServesUntilEveryEdgeHasLeftIt(t *testing.T) {
	t.Parallel()
	s := live()
	e := s.moves(t, draining, "i2", "n2")
	if e.NodeLost {
		t.Fatalf("rescheduled with %v", e)
	}
	s.desired(t, wish{"n1.i1": run, "n2.i2": run})
	s.wants(t, deployment.Running, deployment.HealthHealthy, "n1 is being drained")
	s.quiet(t, draining)
	s.and(started("r1", "i2", 1), healthy("r1", "i2", 1))
	s.quiet(t, draining)
	both := bound("r1", "i1")
	both.InstanceIds = []string{"i1", "i2"}
	s.and(both)
	s.quiet(t, draining)
	s.and(bound("r1", "i2"))
	s.and(s.decide(t, deployment.Advance(s.state, draining, s.now()).Command))
	s.desired(t, wish{"n1.i1": drain, "n2.i2": run})
	s.quiet(t, draining)
	s.wants(t, deployment.Running, deployment.HealthHealthy, "")
	s.and(removed("r1", "i1"))
	s.desired(t, wish{"n2.i2": run})
}

func TestAStandInIsLostItself(t *testing.T) {
	t.Parallel()
	s := live()
	s.moves(t, draining, "i2", "n2")
	both := deployment.Nodes{"n1": deployment.NodeDraining, "n2": deployment.NodeLost}
	s.moves(t, both, "i3", "n3")
	s.desired(t, wish{"n1.i1": run, "n2.i2": gone, "n3.i3": run})
	s.and(started("r1", "i3", 1), healthy("r1", "i3", 1), bound("r1", "i3"))
	s.and(s.decide(t, deployment.Advance(s.state, both, s.now()).Command))
	s.desired(t, wish{"n1.i1": drain, "n2.i2": gone, "n3.i3": run})
}

func TestADrainedNodeIsLostBeforeTheStandInServes(t *testing.T) {
	t.Parallel()
	s := live()
	s.moves(t, draining, "i2", "n2")
	m := deployment.Advance(s.state, lost, s.now()).Move
	if m == nil || len(m.Replace) != 0 || !slices.Equal(m.Gone, []string{"i1"}) {
		t.Fatalf("the move is %+v", m)
	}
	s.and(s.decide(t, deployment.Reschedule{ReleaseID: m.ReleaseID, NodeLost: true, Replaced: m.Gone}))
	s.desired(t, wish{"n1.i1": gone, "n2.i2": run})
	s.and(started("r1", "i2", 1), healthy("r1", "i2", 1), bound("r1", "i2"))
	s.quiet(t, lost)
}

func TestEveryStandInOfAChainServesForTheFirst(t *testing.T) {
	t.Parallel()
	s := live()
	s.moves(t, draining, "i2", "n2")
	s.and(started("r1", "i2", 1), healthy("r1", "i2", 1),
		&deploymentv1.InstanceUnhealthy{ReleaseId: "r1", InstanceId: "i2", Attempt: 1, Reason: "500"})
	both := deployment.Nodes{"n1": deployment.NodeDraining, "n2": deployment.NodeDraining}
	s.moves(t, both, "i3", "n3")
	s.desired(t, wish{"n1.i1": run, "n2.i2": run, "n3.i3": run})
	s.and(started("r1", "i3", 1), healthy("r1", "i3", 1), bound("r1", "i3"))
	s.and(s.decide(t, deployment.Advance(s.state, both, s.now()).Command))
	s.desired(t, wish{"n1.i1": drain, "n2.i2": drain, "n3.i3": run})
}

func TestWithoutRoomALostInstanceStaysAndSaysSoOnce(t *testing.T) {
	t.Parallel()
	s := live()
	s.and(s.decide(t, deployment.Defer{ReleaseID: "r1", Reason: "Its node is lost. No node has room for 256 MB."}))
	s.wants(t, deployment.Running, deployment.HealthHealthy, "No node has room")
	if e := s.decide(t, deployment.Defer{ReleaseID: "r1", Reason: "No node has room for 256 MB: 3 MB are free."}); e != nil {
		t.Errorf("said again: %v", e)
	}
	if m := deployment.Advance(s.state, lost, s.now()).Move; m == nil {
		t.Fatal("it is not tried again")
	}
	// The node returns before room comes.
	step := deployment.Advance(s.state, nil, s.now())
	s.and(s.decide(t, step.Command))
	s.wants(t, deployment.Running, deployment.HealthHealthy, "")
	s.quiet(t, nil)
}

func TestARolloutOnALostNodeBeginsAgainAndStillEnds(t *testing.T) {
	t.Parallel()
	s := live().and(restarted(), scheduled("r2", "i2"), started("r2", "i2", 1), healthy("r2", "i2", 1), bound("r2", "i2"))
	s.state.Instances["i1"].Node = "n0"
	requested := t0.Add(7 * time.Second)
	s.moves(t, lost, "i3", "n2")
	s.desired(t, wish{"n0.i1": run, "n1.i2": gone, "n2.i3": run})
	s.wants(t, deployment.Deploying, deployment.HealthHealthy, "n1 is lost")
	// What was seen of the lost one counts for nothing.
	s.and(bound("r2", "i2"), started("r2", "i2", 1))
	step := deployment.Advance(s.state, lost, s.now())
	if step.Command != nil || step.Move != nil {
		t.Fatalf("step: %+v", step)
	}
	s.and(started("r2", "i3", 1), healthy("r2", "i3", 1), bound("r2", "i3"))
	s.and(s.decide(t, deployment.Advance(s.state, lost, s.now()).Command))
	s.desired(t, wish{"n0.i1": drain, "n1.i2": gone, "n2.i3": run})

	never := live().and(restarted(), scheduled("r2", "i2"))
	latest := requested.Add(time.Hour + 5*time.Minute + time.Minute)
	step = deployment.Advance(never.state, lost, latest)
	failed, ok := never.decide(t, step.Command).(*deploymentv1.ReleaseFailed)
	if !ok || failed.Code != deployment.CodeStartTimeout || !strings.Contains(failed.Reason, "was lost") || step.Move != nil && step.Move.ReleaseID == "r2" {
		t.Fatalf("a rollout whose nodes go on being lost never ends: %+v", step)
	}
}

func TestABoundReleaseOnALostNodeDoesNotRetireWhatServes(t *testing.T) {
	t.Parallel()
	s := live().and(restarted(), scheduled("r2", "i2"), started("r2", "i2", 1), healthy("r2", "i2", 1), bound("r2", "i2"))
	step := deployment.Advance(s.state, lost, s.now())
	if _, running := step.Command.(deployment.MarkRunning); running {
		t.Fatal("it runs on a node that is lost")
	}
}

func TestWhatIsBeingReplacedIsNotDrained(t *testing.T) {
	t.Parallel()
	s := live().and(restarted())
	if m := deployment.Advance(s.state, draining, s.now()).Move; m != nil {
		t.Fatalf("moved while a rollout replaces it: %+v", m)
	}
	s.and(&deploymentv1.ReleaseFailed{ReleaseId: "r2"})
	s.moves(t, draining, "i3", "n2")
}

func TestAStandInThatNeverGetsHealthyIsTriedElsewhere(t *testing.T) {
	t.Parallel()
	s := live()
	s.moves(t, lost, "i2", "n2")
	step := deployment.Advance(s.state, lost, s.now())
	if step.Wake != s.now().Add(6*time.Minute) {
		t.Fatalf("it is looked at again at %s", step.Wake)
	}
	m := deployment.Advance(s.state, lost, step.Wake).Move
	if m == nil || !m.Patient || m.NodeLost || !slices.Equal(m.Avoid, []string{"n2"}) {
		t.Fatalf("the move is %+v", m)
	}
	s.and(s.decide(t, deployment.Reschedule{ReleaseID: m.ReleaseID, Replaced: m.Replace, Placements: at("i3", "n3"), Reason: m.Reason}))
	s.desired(t, wish{"n1.i1": gone, "n2.i2": gone, "n3.i3": run})
}

func TestAStopOrDestroyDoesNotWaitForALostNode(t *testing.T) {
	t.Parallel()
	for _, c := range []deployment.Command{deployment.Stop{}, deployment.Destroy{}} {
		s := live()
		s.and(s.decide(t, c))
		if step := deployment.Advance(s.state, lost, s.now()); step.Command != nil {
			t.Fatalf("%T ended while the route stands", c)
		}
		s.and(&deploymentv1.RouteRemoved{})
		s.quiet(t, nil)
		s.and(s.decide(t, deployment.Advance(s.state, lost, s.now()).Command))
		if !strings.Contains(s.state.Reason, "node is lost") {
			t.Errorf("%T gives the reason %q", c, s.state.Reason)
		}
		s.desired(t, wish{"n1.i1": gone})
	}
}

func TestMovesThatComeTooLateDoNothing(t *testing.T) {
	t.Parallel()
	moved := live()
	moved.moves(t, lost, "i2", "n2")
	leaving := live()
	leaving.moves(t, draining, "i2", "n2")
	stopping := live().and(&deploymentv1.StopRequested{})
	for name, tc := range map[string]struct {
		s *story
		c deployment.Command
	}{
		"replaced already":      {moved, deployment.Reschedule{ReleaseID: "r1", Replaced: []string{"i1"}, Placements: at("i3", "n3")}},
		"leaving already":       {leaving, deployment.Reschedule{ReleaseID: "r1", Replaced: []string{"i1"}, Placements: at("i3", "n3")}},
		"another release":       {live(), deployment.Reschedule{ReleaseID: "r0", Replaced: []string{"i1"}, Placements: at("i3", "n3")}},
		"stopping":              {stopping, deployment.Reschedule{ReleaseID: "r1", Replaced: []string{"i1"}, Placements: at("i3", "n3")}},
		"retire what stays":     {live(), deployment.Retire{ReleaseID: "r1", Instances: []string{"i1"}}},
		"retire while stopping": {stopping, deployment.Retire{ReleaseID: "r1", Instances: []string{"i1"}}},
		"nothing":               {live(), deployment.Retire{ReleaseID: "r1"}},
	} {
		if e := tc.s.decide(t, tc.c); e != nil {
			t.Errorf("%s: %v", name, e)
		}
	}
}
