package deployment_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

func TestEveryEventOfTheSchemaHasAFold(t *testing.T) {
	t.Parallel()
	parts := map[string]bool{"Tier": true, "SealedEnv": true, "HealthCheck": true, "Deadlines": true, "Release": true, "Placement": true}
	messages := deploymentv1.File_slipway_deployment_v1_events_proto.Messages()
	for i := range messages.Len() {
		name := string(messages.Get(i).Name())
		if parts[name] {
			continue
		}
		if !folds(messages.Get(i)) {
			t.Errorf("%s changes no state in any story: give it a fold", name)
		}
	}
}

// folds reports whether the event changes more than the sequence in some story.
func folds(d protoreflect.MessageDescriptor) bool {
	stories := []*story{given(), given(requested()), given(requested(), scheduled("r1", "i1")),
		given(requested(), scheduled("r1", "i1"), started("r1", "i1", 1)), live(),
		given(requested(), scheduled("r1", "i1"), started("r1", "i1", 1), healthy("r1", "i1", 1)),
		live().and(restarted()), live().and(&deploymentv1.StopRequested{}), live().and(&deploymentv1.DestroyRequested{}), live().and(scaleTo(3))}
	sample := map[string]proto.Message{
		"DeploymentRequested": requested(), "DeploymentScheduled": scheduled("r1", "i1"), "RestartRequested": restarted(),
		"PlacementDeferred": &deploymentv1.PlacementDeferred{ReleaseId: "r1", Reason: "full"},
		"DeploymentRunning": &deploymentv1.DeploymentRunning{ReleaseId: "r1"}, "ReleaseFailed": &deploymentv1.ReleaseFailed{ReleaseId: "r1"},
		"StopRequested": &deploymentv1.StopRequested{}, "DeploymentStopped": &deploymentv1.DeploymentStopped{},
		"DestroyRequested": &deploymentv1.DestroyRequested{}, "DeploymentDestroyed": &deploymentv1.DeploymentDestroyed{},
		"ImagePulled":      &deploymentv1.ImagePulled{ReleaseId: "r1", InstanceId: "i1", Digest: "sha256:1"},
		"ImagePullFailed":  &deploymentv1.ImagePullFailed{ReleaseId: "r1", InstanceId: "i1", Reason: "no"},
		"ContainerStarted": started("r1", "i1", 1), "ContainerStartFailed": &deploymentv1.ContainerStartFailed{ReleaseId: "r1", InstanceId: "i1"},
		"ContainerExited": exited("r1", "i1", 1, true), "ContainerRemoved": removed("r1", "i1"),
		"InstanceHealthy": healthy("r1", "i1", 1), "InstanceUnhealthy": &deploymentv1.InstanceUnhealthy{ReleaseId: "r1", InstanceId: "i1", Attempt: 1, Reason: "500"},
		"InstancesRescheduled": &deploymentv1.InstancesRescheduled{ReleaseId: "r1", Placements: at("i2", "n2"), ReplacedInstanceIds: []string{"i1"}},
		"RollbackRequested":    &deploymentv1.RollbackRequested{Release: restarted().Release, FromReleaseNumber: 1},
		"ScaleRequested":       scaleTo(3), "DeploymentScaled": &deploymentv1.DeploymentScaled{ReleaseId: "r1", Count: 3},
		"ScaleFailed":      &deploymentv1.ScaleFailed{ReleaseId: "r1", Count: 3, RestoredCount: 1, Code: "placement_timeout", Reason: "Full."},
		"InstancesRetired": &deploymentv1.InstancesRetired{ReleaseId: "r1", InstanceIds: []string{"i1"}},
		"RouteBound":       bound("r1", "i1"), "RouteRemoved": &deploymentv1.RouteRemoved{},
		"IngressConfigured": &deploymentv1.IngressConfigured{Policy: &routingv1.RoutePolicy{Maintenance: true}},
	}[string(d.Name())]
	if sample == nil {
		return false
	}
	for _, s := range stories {
		before := dump(s.state)
		s.and(proto.CloneOf(sample))
		if dump(s.state) != before {
			return true
		}
	}
	return false
}

func dump(s deployment.State) string {
	text := ""
	for _, r := range []*deployment.Release{s.Live, s.Next} {
		if r == nil {
			text += "none "
			continue
		}
		c := *r
		if c.Failure != nil {
			text += c.Failure.Reason
		}
		c.Failure = nil
		text += fmt.Sprintf("%+v ", c)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Instances)) {
		text += fmt.Sprintf("%s %+v ", id, *s.Instances[id])
	}
	if s.Scale != nil {
		text += fmt.Sprintf("%+v ", *s.Scale)
	}
	// Pointers print as addresses, which every fold changes.
	s.Sequence, s.Live, s.Next, s.Instances, s.Scale, s.Good, s.History = 0, nil, nil, nil, nil, nil, nil
	return text + fmt.Sprintf("%+v", s)
}
