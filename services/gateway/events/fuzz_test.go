package events_test

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/eventstore/fuzzlog"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// FuzzEveryEventIsShown: an event that was written wrong does not end the stream of
// the events that come after it.
func FuzzEveryEventIsShown(f *testing.F) {
	schema, err := fuzzlog.Of(deploymentv1.File_slipway_deployment_v1_events_proto, subjects.Of("acme", subjects.Deployment, "d"))
	if err != nil {
		f.Fatal(err)
	}
	for _, story := range [][]proto.Message{
		{&deploymentv1.DeploymentRequested{Release: &deploymentv1.Release{Env: &deploymentv1.SealedEnv{Names: []string{"A"}, Ciphertext: []byte("secret")}}}},
		{&deploymentv1.ContainerExited{ExitCode: -1, LastLines: []string{"\x00", ""}, RestartAt: timestamppb.New(fuzzlog.Start())}},
		{&deploymentv1.RouteBound{Revision: 1<<64 - 1}},
		{&deploymentv1.InstanceHealthy{CheckedAt: &timestamppb.Timestamp{Seconds: 1 << 40, Nanos: -1}}},
	} {
		data, err := schema.Bytes(story...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, rec := range schema.Log(data) {
			if !rec.Readable() {
				continue
			}
			e, err := cloudevents.Render(rec)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.Struct(); err != nil {
				t.Fatalf("gRPC cannot carry it: %v", err)
			}
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			// An event of an SSE stream ends at the first empty line.
			if strings.ContainsAny(string(text), "\r\n") || strings.Contains(string(text), "ciphertext") {
				t.Fatalf("not one line without what is sealed: %s", text)
			}
		}
	})
}
