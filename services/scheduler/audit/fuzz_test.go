package audit_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore/fuzzlog"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/audit"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// FuzzEveryLogIsTold: whatever is in a log, the audit log says of it what can be kept
// and shown.
func FuzzEveryLogIsTold(f *testing.F) {
	schema, err := fuzzlog.Of(deploymentv1.File_slipway_deployment_v1_events_proto, subjects.Of("acme", subjects.Deployment, "d"))
	if err != nil {
		f.Fatal(err)
	}
	after := func(events ...proto.Message) []proto.Message { return append(live(), events...) }
	exited := &deploymentv1.ContainerExited{ReleaseId: "r1", InstanceId: "i1", Attempt: 1, ExitCode: -1, LastLines: []string{"\x00"}}
	for _, story := range [][]proto.Message{
		after(exited, &deploymentv1.ContainerStarted{ReleaseId: "r1", InstanceId: "i1", Attempt: 2}, &deploymentv1.InstanceHealthy{ReleaseId: "r1", InstanceId: "i1", Attempt: 2}),
		after(&deploymentv1.RestartRequested{Release: release("r2", 2)}, &deploymentv1.ReleaseFailed{ReleaseId: "r2", Code: "crashed", ExitCode: new(int32), LastLines: []string{"no"}}),
		after(&deploymentv1.InstancesRescheduled{ReleaseId: "r1", Placements: []*deploymentv1.Placement{{InstanceId: "i2", NodeId: "m"}}, ReplacedInstanceIds: []string{"i1"}}),
		after(&deploymentv1.StopRequested{}, &deploymentv1.DestroyRequested{}, &deploymentv1.DeploymentDestroyed{Reason: "lost"}),
		{live()[0], &deploymentv1.PlacementDeferred{ReleaseId: "r1", Reason: "no room"}, &deploymentv1.StopRequested{}, &deploymentv1.DeploymentStopped{}},
	} {
		data, err := schema.Bytes(story...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s deployment.State
		for _, rec := range schema.Log(data) {
			for _, c := range audit.Fold(s, rec) {
				if c.Key == "" || c.New && c.Action == "" {
					t.Fatalf("%T makes an entry that nobody can find: %+v", rec.Payload, c)
				}
				text, err := protojson.Marshal(c.Details)
				if err != nil || !utf8.Valid(text) || strings.Contains(string(text), `\u0000`) {
					t.Fatalf("the details of %T cannot be kept: %v, %s", rec.Payload, err, text)
				}
			}
			s = deployment.Evolve(s, rec)
		}
	})
}
