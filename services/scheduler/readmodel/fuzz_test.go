package readmodel_test

import (
	"context"
	"testing"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore/fuzzlog"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/readmodel"
)

// FuzzEveryLogHasRows: whatever an event holds, PostgreSQL takes its rows; none would
// wait among the dead letters.
func FuzzEveryLogHasRows(f *testing.F) {
	schema, err := fuzzlog.Of(deploymentv1.File_slipway_deployment_v1_events_proto, subjects.Of("acme", subjects.Deployment, "d1"))
	if err != nil {
		f.Fatal(err)
	}
	asked := &deploymentv1.DeploymentRequested{DeploymentId: "d1", OrgId: "acme", Subdomain: "\x00", Host: "\x00.test", AppId: "\x00", OperatorId: "\x00",
		Tier: &deploymentv1.Tier{Id: "\x00", MemoryLimitMb: 1<<32 - 1}, Release: &deploymentv1.Release{Id: "\x00", Image: "\x00", Number: 1}}
	for _, story := range [][]proto.Message{
		{asked, &deploymentv1.DeploymentScheduled{ReleaseId: "\x00", Placements: []*deploymentv1.Placement{{InstanceId: "\x00", NodeId: "\x00", ContainerName: "\x00"}}},
			&deploymentv1.ContainerExited{ReleaseId: "\x00", InstanceId: "\x00", Attempt: 1, LastLines: []string{"\x00"}}, &deploymentv1.ReleaseFailed{ReleaseId: "\x00", Code: "\x00", Reason: "\x00"}},
		{asked, &deploymentv1.PlacementDeferred{ReleaseId: "\x00", Reason: "\x00"}, &deploymentv1.StopRequested{InitiatedBy: "\x00"}, &deploymentv1.DeploymentStopped{Reason: "\x00"},
			&deploymentv1.RestartRequested{InitiatedBy: "\x00"}, &deploymentv1.DestroyRequested{}, &deploymentv1.DeploymentDestroyed{}},
		{&deploymentv1.DeploymentRequested{}, &deploymentv1.DeploymentRequested{DeploymentId: "d2", OrgId: "\x00"}},
	} {
		data, err := schema.Bytes(story...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	pool := postgres.Database(f)
	if _, err := pool.Exec(f.Context(), readmodel.Tables); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if err := readmodel.NewFolder(memory.New()).Apply(t.Context(), tx, schema.Log(data)); err != nil {
			t.Fatal(err)
		}
	})
}
