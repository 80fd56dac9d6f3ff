package deployment_test

import (
	"testing"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

func TestEventsWithoutDeadlinesFoldAndAreDueAtOnce(t *testing.T) {
	t.Parallel()
	bare := requested()
	bare.Release.Deadlines = nil
	never := given(bare)
	for _, s := range []*story{
		never,
		given(bare, scheduled("r1", "i1")),
		given(bare, scheduled("r1", "i1"), started("r1", "i1", 1)),
		given(bare, scheduled("r1", "i1"), started("r1", "i1", 1), healthy("r1", "i1", 1)),
	} {
		if _, fails := deployment.Advance(s.state, nil, s.now()).Command.(deployment.FailRelease); !fails {
			t.Errorf("a release without deadlines is waited for: %+v", deployment.Advance(s.state, nil, s.now()))
		}
		deployment.Desired(s.state)
	}
	s := given(bare, scheduled("r1", "i1")).and(&deploymentv1.StopRequested{})
	if _, stopped := deployment.Advance(s.state, nil, s.now()).Command.(deployment.MarkStopped); !stopped {
		t.Errorf("a stop without deadlines is waited for: %+v", deployment.Advance(s.state, nil, s.now()))
	}
	// An event may lack its whole release.
	empty := given(&deploymentv1.DeploymentRequested{DeploymentId: "d1", OrgId: "acme"})
	deployment.Advance(empty.state, nil, empty.now())
	empty.and(&deploymentv1.DestroyRequested{})
	deployment.Advance(empty.state, nil, empty.now())
}
