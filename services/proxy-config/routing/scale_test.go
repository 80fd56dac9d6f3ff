package routing_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
)

func scaleTo(count uint32, leaving ...string) *deploymentv1.ScaleRequested {
	return &deploymentv1.ScaleRequested{ReleaseId: "r1", Count: count, LeavingInstanceIds: leaving}
}

// three is d1 scaled from i1 to three instances, and the log says that edges know.
func three(t *testing.T) *story {
	t.Helper()
	return serving(t).when(scaleTo(3), scheduled("r1", "i2", "i3")).routed(host, one).
		when(started("r1", "i2", 2), healthy("r1", "i2", 2)).due("bound r1[shop.apps.test] [i1 i2]").
		when(started("r1", "i3", 3), healthy("r1", "i3", 3)).routed(host, all).recorded().
		when(&deploymentv1.DeploymentScaled{ReleaseId: "r1", Count: 3}).due("nothing")
}

const (
	all  = "SERVING d1 r1 i1=10.0.0.1:80 i2=10.0.0.2:80 i3=10.0.0.3:80"
	pair = "SERVING d1 r1 i2=10.0.0.2:80 i3=10.0.0.3:80"
)

func TestFurtherInstancesTakeTrafficOnceTheyAreHealthy(t *testing.T) {
	t.Parallel()
	three(t).routed(host, all)
}

func TestOneOfManyThatDiesLeavesTheOthersServing(t *testing.T) {
	t.Parallel()
	three(t).when(exited("r1", "i1", 1)).routed(host, pair).due("nothing").
		when(started("r1", "i1", 4), healthy("r1", "i1", 4)).due("bound r1[shop.apps.test] [i1 i2 i3]")
}

func TestWhatIsTooManyTakesNoTrafficAndIsSaidToTakeNone(t *testing.T) {
	t.Parallel()
	three(t).when(scaleTo(1, "i2", "i3")).routed(host, one).due("bound r1[shop.apps.test] [i1]").
		recorded().when(retired("r1", "i2", "i3")).routed(host, one).due("nothing")
}

func TestWhatIsTooManyServesWhileWhatStaysCannot(t *testing.T) {
	t.Parallel()
	three(t).when(exited("r1", "i1", 1), scaleTo(1, "i2", "i3")).routed(host, pair).
		when(started("r1", "i1", 4), healthy("r1", "i1", 4)).routed(host, "SERVING d1 r1 i1=10.0.0.4:80").due("bound r1[shop.apps.test] [i1]")
}

func TestAScaleThatIsTakenBackKeepsWhatWasLeaving(t *testing.T) {
	t.Parallel()
	three(t).when(scaleTo(1, "i2", "i3")).recorded().when(scaleTo(2, "i3")).routed(host, "SERVING d1 r1 i1=10.0.0.1:80 i2=10.0.0.2:80")
	three(t).when(scaleTo(1, "i2", "i3")).when(&deploymentv1.ScaleFailed{ReleaseId: "r1", Count: 1, RestoredCount: 3}).routed(host, all)
	// Those that a failed scale brought go again; one that never served goes at once.
	serving(t).when(scaleTo(3), scheduled("r1", "i2", "i3"), started("r1", "i2", 2), healthy("r1", "i2", 2)).recorded().
		when(&deploymentv1.ScaleFailed{ReleaseId: "r1", Count: 3, RestoredCount: 1, LeavingInstanceIds: []string{"i2", "i3"}}).routed(host, one).
		when(started("r1", "i3", 3), healthy("r1", "i3", 3)).routed(host, one).due("bound r1[shop.apps.test] [i1]")
}

func TestAStandInThatScalingTakesAwayTakesWhomItStoodInForWithIt(t *testing.T) {
	t.Parallel()
	three(t).when(moved("r1", "i1", "i4", false), scaleTo(2, "i4")).routed(host, pair)
}

func TestAReleaseTakesOverWhole(t *testing.T) {
	t.Parallel()
	s := three(t).when(restart("r2", 2), scheduled("r2", "j1", "j2", "j3"))
	for n, id := range []string{"j1", "j2"} {
		s.when(started("r2", id, uint32(n+5)), healthy("r2", id, uint32(n+5))).routed(host, all).due("nothing")
	}
	whole := "SERVING d1 r2 j1=10.0.0.5:80 j2=10.0.0.6:80 j3=10.0.0.7:80"
	s.when(started("r2", "j3", 7), healthy("r2", "j3", 7)).routed(host, whole).due("bound r2[shop.apps.test] [j1 j2 j3]").
		// One falls ill before the rollout has ended: the old ones are still there.
		when(unhealthy("r2", "j3", 7)).routed(host, all).when(healthy("r2", "j3", 7)).recorded().
		when(running("r2")).routed(host, whole).when(unhealthy("r2", "j3", 7)).routed(host, "SERVING d1 r2 j1=10.0.0.5:80 j2=10.0.0.6:80")
}

func TestAReleaseTakesOverEarlierFromOneThatServesWithFewer(t *testing.T) {
	t.Parallel()
	three(t).when(exited("r1", "i2", 2), exited("r1", "i3", 3), restart("r2", 2), scheduled("r2", "j1", "j2", "j3")).routed(host, one).
		when(started("r2", "j1", 5), healthy("r2", "j1", 5)).routed(host, "SERVING d1 r2 j1=10.0.0.5:80")
}

func TestARollbackIsRoutedAsARestart(t *testing.T) {
	t.Parallel()
	back := []proto.Message{&deploymentv1.RollbackRequested{Release: release("r2", 2), FromReleaseNumber: 1}, scheduled("r2", "j1"), started("r2", "j1", 5)}
	serving(t).when(back...).routed(host, one).when(healthy("r2", "j1", 5)).routed(host, "SERVING d1 r2 j1=10.0.0.5:80").recorded().when(running("r2")).due("nothing")
}
