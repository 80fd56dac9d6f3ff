package routing_test

import (
	"slices"
	"testing"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/proxy-config/routing"
)

const (
	one = "SERVING d1 r1 i1=10.0.0.1:80"
	two = "SERVING d1 r2 i2=10.0.0.2:80"
)

func TestAFirstDeployTakesTrafficOnceItIsHealthy(t *testing.T) {
	t.Parallel()
	given(t).routed(host, "none").
		when(requested()).routed(host, "STARTING d1").due("nothing").
		when(scheduled("r1", "i1"), started("r1", "i1", 1)).routed(host, "STARTING d1").due("nothing").
		when(healthy("r1", "i1", 1)).routed(host, one).due("bound r1[shop.apps.test] [i1]").
		recorded().due("nothing").
		when(running("r1")).routed(host, one).due("nothing")
}

func TestTheOldReleaseServesUntilTheNewOneIsHealthy(t *testing.T) {
	t.Parallel()
	rollingOut(t).routed(host, one).due("nothing").
		when(healthy("r2", "i2", 2)).routed(host, two).due("bound r2[shop.apps.test] [i2]").
		recorded().when(running("r2", "i1")).routed(host, two).due("nothing").
		when(&deploymentv1.ContainerRemoved{ReleaseId: "r1", InstanceId: "i1"}).routed(host, two).due("nothing")
}

func TestAReleaseThatFailsNeverTakesTheOldOneOffTheAir(t *testing.T) {
	t.Parallel()
	rollingOut(t).when(unhealthy("r2", "i2", 2), failed("r2")).routed(host, one).due("nothing").
		when(healthy("r2", "i2", 2)).routed(host, one).due("nothing")
}

func TestAReleaseThatFailsAfterItWasHealthyGivesTheTrafficBack(t *testing.T) {
	t.Parallel()
	rollingOut(t).when(healthy("r2", "i2", 2)).recorded().
		when(failed("r2")).routed(host, one).due("bound r1[shop.apps.test] [i1]").
		recorded().due("nothing")
}

func TestWhatIsBoundIsSaidAgainWhenItDiedBesideAnother(t *testing.T) {
	t.Parallel()
	rollingOut(t).when(healthy("r2", "i2", 2)).recorded().
		when(exited("r2", "i2", 2)).routed(host, one).
		when(started("r2", "i2", 3), healthy("r2", "i2", 3)).due("bound r2[shop.apps.test] [i2]").
		recorded().due("nothing")
}

func TestACrashTakesTheAppDownAndTheNextAttemptBringsItBack(t *testing.T) {
	t.Parallel()
	serving(t).when(exited("r1", "i1", 1)).routed(host, "DOWN d1").due("nothing").
		when(started("r1", "i1", 2)).routed(host, "DOWN d1").
		when(healthy("r1", "i1", 1)).routed(host, "DOWN d1").
		when(healthy("r1", "i1", 2)).routed(host, "SERVING d1 r1 i1=10.0.0.2:80").due("nothing")
}

func TestAnUnhealthyInstanceLeavesAndComesBack(t *testing.T) {
	t.Parallel()
	serving(t).when(unhealthy("r1", "i1", 1)).routed(host, "DOWN d1").due("nothing").
		when(healthy("r1", "i1", 1)).routed(host, one).due("nothing")
}

func TestAFirstReleaseThatCrashesWasNeverUp(t *testing.T) {
	t.Parallel()
	given(t, requested(), scheduled("r1", "i1"), started("r1", "i1", 1), exited("r1", "i1", 1)).routed(host, "STARTING d1")
}

func TestStaleFactsChangeNothing(t *testing.T) {
	t.Parallel()
	serving(t).when(exited("r1", "i1", 1), started("r1", "i1", 2), healthy("r1", "i1", 2)).
		when(exited("r1", "i1", 1), unhealthy("r1", "i1", 1), started("r1", "i1", 1), healthy("r9", "i1", 2), exited("r1", "i9", 9)).
		routed(host, "SERVING d1 r1 i1=10.0.0.2:80")
	given(t, requested(), started("r1", "never-scheduled", 1), healthy("r1", "never-scheduled", 1)).routed(host, "STARTING d1")
}

func TestSeveralInstancesServeTogetherAndAChangeIsBoundAgain(t *testing.T) {
	t.Parallel()
	given(t, requested(), scheduled("r1", "i2", "i1"), started("r1", "i1", 1), started("r1", "i2", 2),
		healthy("r1", "i2", 2)).due("bound r1[shop.apps.test] [i2]").recorded().
		when(healthy("r1", "i1", 1)).routed(host, "SERVING d1 r1 i1=10.0.0.1:80 i2=10.0.0.2:80").
		due("bound r1[shop.apps.test] [i1 i2]").recorded().due("nothing")
}

func TestAStopTakesTheRouteAwayAndARestartBringsItBack(t *testing.T) {
	t.Parallel()
	serving(t).when(&deploymentv1.StopRequested{}).routed(host, "STOPPED d1").due("removed [shop.apps.test]").
		recorded().due("nothing").
		when(healthy("r1", "i1", 1), &deploymentv1.DeploymentStopped{}).routed(host, "STOPPED d1").due("nothing").
		when(restart("r2", 2)).routed(host, "STARTING d1").
		when(scheduled("r2", "i2"), started("r2", "i2", 2), healthy("r2", "i2", 2)).routed(host, two).
		due("bound r2[shop.apps.test] [i2]")
}

func TestAStopBeforeAnythingWasBoundNeedsNoWord(t *testing.T) {
	t.Parallel()
	given(t, requested(), scheduled("r1", "i1"), started("r1", "i1", 1), &deploymentv1.StopRequested{}).
		routed(host, "STOPPED d1").due("nothing")
}

func TestARouteBoundThatCrossesAStopIsTakenBack(t *testing.T) {
	t.Parallel()
	given(t, requested(), scheduled("r1", "i1"), started("r1", "i1", 1), healthy("r1", "i1", 1),
		&deploymentv1.StopRequested{},
		&deploymentv1.RouteBound{ReleaseId: "r1", Hosts: []string{host}, InstanceIds: []string{"i1"}}).
		due("removed [shop.apps.test]").recorded().due("nothing")
}

func TestADestroyFreesTheHostAtOnce(t *testing.T) {
	t.Parallel()
	s := serving(t).when(&deploymentv1.DestroyRequested{}).routed(host, "none").due("removed [shop.apps.test]")
	other := &deploymentv1.DeploymentRequested{DeploymentId: "d2", OrgId: "acme", Host: host, Release: release("x1", 1)}
	s.of("d2", other).routed(host, "STARTING d2").due("removed [shop.apps.test]").
		recorded().when(&deploymentv1.DeploymentDestroyed{}).routed(host, "STARTING d2").due("nothing")
	if known := s.fold.Deployments(); !slices.Equal(known, []string{"d2"}) {
		t.Errorf("the fold remembers %v", known)
	}
}

func TestADestroyedDeploymentIsRememberedUntilItsRouteIsSaidToBeGone(t *testing.T) {
	t.Parallel()
	s := serving(t).when(&deploymentv1.DestroyRequested{}, &deploymentv1.DeploymentDestroyed{}).due("removed [shop.apps.test]").recorded()
	if known := s.fold.Deployments(); len(known) != 0 {
		t.Errorf("the fold remembers %v", known)
	}
}

func TestAFirstReleaseThatFailsGivesTheHostAwayAndARestartTakesItAgain(t *testing.T) {
	t.Parallel()
	s := given(t, requested(), scheduled("r1", "i1"), failed("r1")).routed(host, "none").due("nothing")
	s.when(restart("r2", 2)).routed(host, "STARTING d1")

	other := &deploymentv1.DeploymentRequested{DeploymentId: "d2", OrgId: "acme", Host: host, Release: release("x1", 1)}
	given(t, requested(), failed("r1")).of("d2", other).routed(host, "STARTING d2").
		when(started("r1", "i1", 1)).routed(host, "STARTING d2")
}

func TestAFailedRestartOfAStoppedAppKeepsItsHost(t *testing.T) {
	t.Parallel()
	serving(t).when(&deploymentv1.StopRequested{}).recorded().
		when(&deploymentv1.DeploymentStopped{}, restart("r2", 2), failed("r2")).
		routed(host, "STOPPED d1").due("nothing")
}

func TestAFactFoundDueTwiceHasTheSameID(t *testing.T) {
	t.Parallel()
	s := rollingOut(t).when(healthy("r2", "i2", 2))
	first, _ := s.fold.Due("d1")
	s.when(&deploymentv1.ImagePulled{ReleaseId: "r2", InstanceId: "i2"})
	again, _ := s.fold.Due("d1")
	if first.ID == "" || first.ID != again.ID {
		t.Errorf("ids %q and %q", first.ID, again.ID)
	}
	s.recorded().when(failed("r2"))
	if back, _ := s.fold.Due("d1"); back.ID == first.ID {
		t.Errorf("another fact has the same id %q", back.ID)
	}
}

func TestAnEventIsFoldedOnce(t *testing.T) {
	t.Parallel()
	f := routing.New()
	rec := eventstore.Recorded{Sequence: 4, Event: eventstore.Event{
		Aggregate: subjects.Of("acme", subjects.Deployment, "d1"), Payload: requested()}}
	if id, hosts := f.Apply(rec); id != "d1" || !slices.Equal(hosts, []string{host}) {
		t.Errorf("the first time it is %q, %v", id, hosts)
	}
	if id, _ := f.Apply(rec); id != "" {
		t.Error("it is folded again")
	}
}

// An event that is added to the schema must be thought about here.
func TestEveryEventOfTheSchemaIsFoldedOrKnownToSayNothingOfRoutes(t *testing.T) {
	t.Parallel()
	known := []string{
		"DeploymentRequested", "DeploymentScheduled", "DeploymentRunning", "ReleaseFailed", "RestartRequested",
		"StopRequested", "DeploymentStopped", "DestroyRequested", "DeploymentDestroyed", "ContainerStarted",
		"ContainerExited", "ContainerRemoved", "InstanceHealthy", "InstanceUnhealthy", "RouteBound", "RouteRemoved",
		"InstancesRescheduled", "InstancesRetired", "RollbackRequested", "ScaleRequested", "ScaleFailed",
		"InstancesRescheduled", "InstancesRetired",
		"IngressConfigured",
		// These say nothing of routes.
		"DeploymentScaled", "PlacementDeferred", "ImagePulled", "ImagePullFailed", "ContainerStartFailed",
	}
	for _, name := range everyEvent() {
		if !slices.Contains(known, name) {
			t.Errorf("%s has no fold", name)
		}
	}
}

func TestARouteThatIsSaidToBeBoundOnlyAfterTheDestroyIsSaidToBeGone(t *testing.T) {
	t.Parallel()
	s := given(t, requested(), scheduled("r1", "i1"), started("r1", "i1", 1), healthy("r1", "i1", 1))
	late, _ := s.fold.Due("d1")
	s.when(&deploymentv1.DestroyRequested{}).routed(host, "none").due("nothing").
		when(late.Payload(s.last)).routed(host, "none").due("removed [shop.apps.test]").
		recorded().when(&deploymentv1.DeploymentDestroyed{}).due("nothing")
	if known := s.fold.Deployments(); len(known) != 0 {
		t.Errorf("the fold remembers %v", known)
	}
}
