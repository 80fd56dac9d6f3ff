package events_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/events"
)

func render(t *testing.T, payload proto.Message) string {
	t.Helper()
	e, err := events.Render(eventstore.Recorded{Sequence: 3, Event: eventstore.Event{
		Aggregate: subjects.Of("o", subjects.Deployment, "d"), ID: "e", Payload: payload, Source: "test", Time: time.Unix(0, 1),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Struct(); err != nil {
		t.Errorf("gRPC cannot carry it: %v", err)
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDataIsTheWholePayload(t *testing.T) {
	t.Parallel()
	code := int32(-1)
	got := render(t, &deploymentv1.ReleaseFailed{ReleaseId: "r", LastLines: []string{"a\nb", "<>"}, ExitCode: &code})
	for _, want := range []string{`"exit_code":-1`, `"last_lines":["a\nb",`, `"oom_killed":false`, `"reason":""`, `"sequence":3`, `"time":"1970-01-01T00:00:00Z"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %s", got, want)
		}
	}
	if got := render(t, &deploymentv1.ReleaseFailed{}); !strings.Contains(got, `"exit_code":null`) || !strings.Contains(got, `"last_lines":[]`) {
		t.Errorf("what is absent is shown as %s", got)
	}
	exited := render(t, &deploymentv1.ContainerExited{ExitedAt: timestamppb.New(time.Unix(1, 0))})
	if !strings.Contains(exited, `"exited_at":"1970-01-01T00:00:01Z"`) || !strings.Contains(exited, `"restart_at":null`) {
		t.Errorf("times are shown as %s", exited)
	}
	if pulled := render(t, &deploymentv1.ImagePulled{Took: durationpb.New(1500 * time.Millisecond)}); !strings.Contains(pulled, `"took":"1.500s"`) {
		t.Errorf("durations are shown as %s", pulled)
	}
}

// Whatever bytes an event holds are sealed values today; a new field of bytes has
// to be thought of before it is shown to anybody.
func TestNoEventShowsSealedValues(t *testing.T) {
	t.Parallel()
	messages := deploymentv1.File_slipway_deployment_v1_events_proto.Messages()
	for i := range messages.Len() {
		m := messages.Get(i)
		for j := range m.Fields().Len() {
			if f := m.Fields().Get(j); f.Kind() == protoreflect.BytesKind && m.Name() != "SealedEnv" {
				t.Errorf("%s holds bytes", f.FullName())
			}
		}
	}
	release := &deploymentv1.Release{Id: "r", Env: &deploymentv1.SealedEnv{Names: []string{"KEY"}, Ciphertext: []byte("planted")}}
	for _, payload := range []proto.Message{&deploymentv1.DeploymentRequested{Release: release}, &deploymentv1.RestartRequested{Release: release}} {
		got := render(t, payload)
		if strings.Contains(got, "ciphertext") || strings.Contains(got, "cGxhbnRlZA") || !strings.Contains(got, `"names":["KEY"]`) {
			t.Errorf("shown as %s", got)
		}
	}
}
