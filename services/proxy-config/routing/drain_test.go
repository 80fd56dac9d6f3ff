package routing_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
)

func TestEdgesAreToldHowLongAReleaseDrains(t *testing.T) {
	t.Parallel()
	e := requested()
	e.Release.Deadlines = &deploymentv1.Deadlines{Drain: durationpb.New(7 * time.Second)}
	s := given(t, e, scheduled("r1", "i1"), started("r1", "i1", 1), healthy("r1", "i1", 1)).recorded().when(running("r1"))
	holds := func(want time.Duration) {
		t.Helper()
		if got := s.fold.Wanted(host).GetPolicy().GetDrain().AsDuration(); got != want {
			t.Errorf("the route drains for %s, want %s", got, want)
		}
	}
	holds(7 * time.Second)
	next := restart("r2", 2)
	next.Release.Deadlines = &deploymentv1.Deadlines{Drain: durationpb.New(2 * time.Second)}
	s.when(next)
	holds(2 * time.Second)
	if route := given(t, requested()).fold.Wanted(host); route.GetPolicy() != nil {
		t.Errorf("a release without a drain has the policy %v", route.GetPolicy())
	}
}
