package routing_test

import (
	"testing"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
)

// moved has i2 stand in for i1, and so on.
func moved(release, from, to string, lost bool) *deploymentv1.InstancesRescheduled {
	e := &deploymentv1.InstancesRescheduled{ReleaseId: release, NodeLost: lost, ReplacedInstanceIds: []string{from}}
	if to != "" {
		e.Placements = []*deploymentv1.Placement{{InstanceId: to, NodeId: "n2"}}
	}
	return e
}

func retired(release string, instances ...string) *deploymentv1.InstancesRetired {
	return &deploymentv1.InstancesRetired{ReleaseId: release, InstanceIds: instances}
}

const (
	standIn = "SERVING d1 r1 i2=10.0.0.2:80"
	third   = "SERVING d1 r1 i3=10.0.0.3:80"
)

func TestALostInstanceLeavesAtOnceAndItsStandInTakesOver(t *testing.T) {
	t.Parallel()
	serving(t).when(moved("r1", "i1", "i2", true)).routed(host, "DOWN d1").due("nothing").
		when(healthy("r1", "i1", 1), started("r1", "i1", 2), healthy("r1", "i1", 2)).routed(host, "DOWN d1").due("nothing").
		when(started("r1", "i2", 2), healthy("r1", "i2", 2)).routed(host, standIn).due("bound r1[shop.apps.test] [i2]").
		recorded().due("nothing").
		when(&deploymentv1.ContainerRemoved{ReleaseId: "r1", InstanceId: "i1"}).routed(host, standIn)
}

func TestADrainedInstanceServesUntilItsStandInCan(t *testing.T) {
	t.Parallel()
	serving(t).when(moved("r1", "i1", "i2", false)).routed(host, one).due("nothing").
		when(started("r1", "i2", 2)).routed(host, one).
		when(healthy("r1", "i2", 2)).routed(host, standIn).due("bound r1[shop.apps.test] [i2]").
		// It may still fall ill: the old one is there until it is retired.
		when(unhealthy("r1", "i2", 2)).routed(host, one).due("nothing").
		when(healthy("r1", "i2", 2)).recorded().
		when(retired("r1", "i1"), unhealthy("r1", "i2", 2)).routed(host, "DOWN d1").
		when(healthy("r1", "i2", 2)).routed(host, standIn)
}

func TestAStandInOfAStandInServesForBoth(t *testing.T) {
	t.Parallel()
	serving(t).when(moved("r1", "i1", "i2", false), started("r1", "i2", 2), healthy("r1", "i2", 2), unhealthy("r1", "i2", 2)).
		when(moved("r1", "i2", "i3", false)).routed(host, one).
		when(started("r1", "i3", 3), healthy("r1", "i3", 3)).routed(host, third).
		// Lost meanwhile, it leaves the third to stand in for the first.
		when(moved("r1", "i2", "", true)).routed(host, third).due("bound r1[shop.apps.test] [i3]")
}

func TestAStandInThatIsLostLeavesTheFirstServing(t *testing.T) {
	t.Parallel()
	serving(t).when(moved("r1", "i1", "i2", false), started("r1", "i2", 2), moved("r1", "i2", "i3", true)).routed(host, one).
		when(started("r1", "i3", 3), healthy("r1", "i3", 3)).routed(host, third)
}

func TestARolloutThatMovesTakesTrafficWhereItMovedTo(t *testing.T) {
	t.Parallel()
	rollingOut(t).when(moved("r2", "i2", "i3", true), healthy("r2", "i2", 2)).routed(host, one).due("nothing").
		when(started("r2", "i3", 3), healthy("r2", "i3", 3)).routed(host, "SERVING d1 r2 i3=10.0.0.3:80")
}

func TestAMoveOfAReleaseThatIsOverIsNobodys(t *testing.T) {
	t.Parallel()
	serving(t).when(moved("r0", "i1", "i2", true), started("r0", "i2", 2), healthy("r0", "i2", 2)).routed(host, one).due("nothing")
}
