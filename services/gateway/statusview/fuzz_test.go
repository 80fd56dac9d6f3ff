package statusview_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore/fuzzlog"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/statusview"
)

// FuzzEveryLogHasAStatus: whatever is in a log, a poll is answered in the dialect's words.
func FuzzEveryLogHasAStatus(f *testing.F) {
	schema, err := fuzzlog.Of(deploymentv1.File_slipway_deployment_v1_events_proto, subjects.Of("acme", subjects.Deployment, "d"))
	if err != nil {
		f.Fatal(err)
	}
	for _, story := range [][]proto.Message{
		after(restart("r2"), scheduled("r2", "i2"), started("r2", "i2", 1), failed("r2")),
		after(exited("r1", "i1", 1), started("r1", "i1", 2), unhealthy("r1", "i1", 2)),
		after(moved("r1", "i1", "i2", true), started("r1", "i2", 1), retired("r1", "i1"), moved("r1", "i2", "i2", false)),
		after(&deploymentv1.DeploymentStopped{}, restart("r2"), &deploymentv1.DeploymentDestroyed{}),
	} {
		data, err := schema.Bytes(story...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	statuses := map[string]bool{statusview.Pending: true, statusview.Deploying: true, statusview.Running: true, statusview.Stopped: true, statusview.Destroyed: true}
	healths := map[string]bool{statusview.HealthUnknown: true, statusview.HealthStarting: true, statusview.HealthHealthy: true, statusview.HealthUnhealthy: true}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s statusview.State
		for _, rec := range schema.Log(data) {
			before := s.Health()
			next := statusview.Evolve(s, rec.Payload)
			if s.Health() != before {
				t.Fatalf("folding %T changed the state of before", rec.Payload)
			}
			s = next
			if s.ID != "" && !statuses[s.Status] || !healths[s.Health()] {
				t.Fatalf("after %T its status is %q and its health %q", rec.Payload, s.Status, s.Health())
			}
		}
	})
}
