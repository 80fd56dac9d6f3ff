package deployment_test

import (
	"testing"

	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

func TestAReleaseThatDiedAfterItWasBoundDoesNotReplaceWhatServes(t *testing.T) {
	t.Parallel()
	s := live().and(restarted(), scheduled("r2", "i2"), started("r2", "i2", 1), healthy("r2", "i2", 1), bound("r2", "i2"), exited("r2", "i2", 1, true))
	if step := deployment.Advance(s.state, nil, s.now()); step.Command != nil {
		t.Fatalf("nothing of it runs, and the step is %+v", step)
	}
	// The edges may have gone back to what serves, said or not: what was said of r2
	// holds no more, even when it is well again.
	s.and(started("r2", "i2", 2), healthy("r2", "i2", 2))
	if step := deployment.Advance(s.state, nil, s.now()); step.Command != nil {
		t.Fatalf("the edges may send to r1, and the step is %+v", step)
	}
	s.and(bound("r1", "i1"))
	if step := deployment.Advance(s.state, nil, s.now()); step.Command != nil {
		t.Fatalf("the edges send to r1, and the step is %+v", step)
	}
	if e := s.decide(t, deployment.MarkRunning{ReleaseID: "r2"}); e != nil {
		t.Fatalf("decided %v", e)
	}
	s.and(bound("r2", "i2"))
	if step := deployment.Advance(s.state, nil, s.now()); step.Command != (deployment.MarkRunning{ReleaseID: "r2"}) {
		t.Fatalf("step once it is bound again: %+v", step)
	}
}
