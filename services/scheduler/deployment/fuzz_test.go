package deployment_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/fuzzlog"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// FuzzEveryLogIsFolded holds the aggregate against logs that no command of ours would
// write: whatever is in the log, every reader and every next step gets an answer.
func FuzzEveryLogIsFolded(f *testing.F) {
	schema, err := fuzzlog.Of(deploymentv1.File_slipway_deployment_v1_events_proto, subjects.Of("acme", subjects.Deployment, "d1"))
	if err != nil {
		f.Fatal(err)
	}
	for _, story := range stories() {
		data, err := schema.Bytes(story...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s deployment.State
		for _, rec := range schema.Log(data) {
			before := deployment.Summary(s)
			after := deployment.Evolve(s, rec)
			if again := deployment.Summary(s); !proto.Equal(before, again) {
				t.Fatalf("folding %T changed the state of before: %v became %v", rec.Payload, before, again)
			}
			s = after
			look(t, s, rec.Time)
		}
		finish(t, s)
	})
}

// look asks all that is asked of a state.
func look(t *testing.T, s deployment.State, now time.Time) {
	t.Helper()
	if _, err := proto.Marshal(deployment.Summary(s)); err != nil {
		t.Fatalf("what readers are shown cannot be sent: %v", err)
	}
	for key, d := range deployment.Desired(s) {
		if d == nil || key == "" {
			t.Fatalf("a wanted instance without a name: %v", d)
		}
	}
	deployment.Targets(s)
	for id, i := range s.Instances {
		deployment.Env(s, i.Node, id)
	}
	for _, c := range []deployment.Command{
		deployment.Create{Event: requested()}, deployment.Restart{ReleaseID: "r9", ContainerName: "c9"}, deployment.Stop{}, deployment.Destroy{},
		deployment.ScaleTo{Count: 3}, deployment.ScaleTo{Count: 1}, deployment.Rollback{ReleaseID: "r9"}, deployment.Rollback{Number: 1, ReleaseID: "r9"},
		deployment.ConfigureIngress{Maintenance: new(true), DrainSeconds: new(int32(1))},
	} {
		event, err := deployment.Decide(s, c, now)
		if err == nil && event != nil {
			deployment.Evolve(s, eventstore.Recorded{Sequence: s.Sequence + 1, Event: eventstore.Event{Payload: event, Time: now}})
		}
	}
}

// finish does what the platform does by itself once nobody answers any more: every
// deadline passes, and nothing may be left under way.
func finish(t *testing.T, s deployment.State) {
	t.Helper()
	now := fuzzlog.Start().AddDate(900, 0, 0)
	lost := deployment.Nodes{}
	for _, i := range s.Instances {
		lost[i.Node] = deployment.NodeLost
	}
	for _, nodes := range []deployment.Nodes{nil, lost} {
		s := s
		for steps := 0; ; steps++ {
			step := deployment.Advance(s, nodes, now)
			if step.Command == nil {
				break
			}
			event, err := deployment.Decide(s, step.Command, now)
			if err != nil || event == nil || steps > 1000 {
				t.Fatalf("after %d steps %#v is due, and comes to %v, %v", steps, step.Command, event, err)
			}
			s = deployment.Evolve(s, eventstore.Recorded{Sequence: s.Sequence + 1, Event: eventstore.Event{Payload: event, Time: now}})
		}
		if s.Exists() && (s.Next != nil && s.Next.RequestedAt.Before(now) || s.Scale != nil && s.Next == nil && s.Scale.RequestedAt.Before(now) || s.Intent != deployment.IntentNone) {
			t.Fatalf("with all deadlines over it is still under way: %v", deployment.Summary(s))
		}
	}
}

// stories are where a fuzzer begins: all that may happen to a deployment.
func stories() [][]proto.Message {
	live := []proto.Message{requested(), scheduled("r1", "i1"), &deploymentv1.ImagePulled{ReleaseId: "r1", InstanceId: "i1", Digest: "sha256:1"},
		started("r1", "i1", 1), healthy("r1", "i1", 1), bound("r1", "i1"), &deploymentv1.DeploymentRunning{ReleaseId: "r1"}}
	after := func(events ...proto.Message) []proto.Message {
		return append(append([]proto.Message{}, live...), events...)
	}
	return [][]proto.Message{
		live,
		{requested(), &deploymentv1.PlacementDeferred{ReleaseId: "r1", Reason: "no room"}, &deploymentv1.ReleaseFailed{ReleaseId: "r1", Code: "placement_timeout"}},
		{requested(), scheduled("r1", "i1"), &deploymentv1.ImagePullFailed{ReleaseId: "r1", InstanceId: "i1", Final: true}, startFailed(3)},
		after(restarted(), scheduled("r2", "i2"), started("r2", "i2", 1), healthy("r2", "i2", 1), bound("r2", "i2"), &deploymentv1.DeploymentRunning{ReleaseId: "r2"}, removed("r1", "i1")),
		after(exited("r1", "i1", 1, true), started("r1", "i1", 2), &deploymentv1.InstanceUnhealthy{ReleaseId: "r1", InstanceId: "i1", Attempt: 2}),
		after(&deploymentv1.StopRequested{}, &deploymentv1.RouteRemoved{}, removed("r1", "i1"), &deploymentv1.DeploymentStopped{}, restarted()),
		after(&deploymentv1.DestroyRequested{}, &deploymentv1.RouteRemoved{}, removed("r1", "i1"), &deploymentv1.DeploymentDestroyed{}),
		after(&deploymentv1.InstancesRescheduled{ReleaseId: "r1", Placements: at("i2", "n2"), ReplacedInstanceIds: []string{"i1"}},
			started("r1", "i2", 1), healthy("r1", "i2", 1), bound("r1", "i2"), &deploymentv1.InstancesRetired{ReleaseId: "r1", InstanceIds: []string{"i1"}}),
		after(&deploymentv1.InstancesRescheduled{ReleaseId: "r1", Placements: at("i2", "n2"), ReplacedInstanceIds: []string{"i1"}, NodeLost: true}),
		after(scaleTo(3), placedAll("r1", "i2", "i3"), started("r1", "i2", 1), healthy("r1", "i2", 1), boundAll("r1", "i1", "i2"), scaleTo(1, "i2", "i3"),
			bound("r1", "i1"), &deploymentv1.InstancesRetired{ReleaseId: "r1", InstanceIds: []string{"i2"}}, &deploymentv1.DeploymentScaled{ReleaseId: "r1", Count: 1}),
		after(scaleTo(2), placedAll("r1", "i2"), &deploymentv1.ScaleFailed{ReleaseId: "r1", Count: 2, RestoredCount: 1, LeavingInstanceIds: []string{"i2"}}),
		after(&deploymentv1.RollbackRequested{Release: restarted().Release, FromReleaseNumber: 1}, scheduled("r2", "i2"), started("r2", "i2", 1)),
	}
}
