package events_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	_ "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	_ "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	_ "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func render(t *testing.T, payload proto.Message) string {
	t.Helper()
	e, err := cloudevents.Render(eventstore.Recorded{Sequence: 3, Event: eventstore.Event{
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

// Bytes are what is sealed, and hashes of secrets: no event of any kind shows them.
func TestNoEventShowsSealedValues(t *testing.T) {
	t.Parallel()
	walked := 0
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		file := mt.Descriptor().ParentFile().Path()
		if !strings.HasPrefix(file, "slipway/") || !strings.HasSuffix(file, "events.proto") || mt.Descriptor().IsMapEntry() {
			return true
		}
		m := mt.New()
		plant(m, 3)
		if got := render(t, m.Interface()); strings.Contains(got, "planted") || strings.Contains(got, "cGxhbnRlZA") {
			t.Errorf("%s is shown as %s", mt.Descriptor().Name(), got)
		}
		walked++
		return true
	})
	if walked < 40 {
		t.Errorf("walked %d events only", walked)
	}
	release := &deploymentv1.Release{Id: "r", Env: &deploymentv1.SealedEnv{Names: []string{"KEY"}, Ciphertext: []byte("planted")}}
	for _, payload := range []proto.Message{&deploymentv1.DeploymentRequested{Release: release}, &deploymentv1.RestartRequested{Release: release},
		&deploymentv1.RollbackRequested{Release: release}} {
		got := render(t, payload)
		if strings.Contains(got, "ciphertext") || strings.Contains(got, "cGxhbnRlZA") || !strings.Contains(got, `"names":["KEY"]`) {
			t.Errorf("shown as %s", got)
		}
	}
}

// plant puts a secret into all bytes of a message, so deep.
func plant(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		secret := protoreflect.ValueOfBytes([]byte("planted"))
		switch {
		case f.IsMap():
		case f.IsList() && f.Kind() == protoreflect.BytesKind:
			m.Mutable(f).List().Append(secret)
		case f.Kind() == protoreflect.BytesKind:
			m.Set(f, secret)
		case f.IsList() && f.Message() != nil && depth > 0:
			plant(m.Mutable(f).List().AppendMutable().Message(), depth-1)
		case !f.IsList() && f.Message() != nil && depth > 0 && f.Message().ParentFile().Package() != "google.protobuf":
			plant(m.Mutable(f).Message(), depth-1)
		}
	}
}
