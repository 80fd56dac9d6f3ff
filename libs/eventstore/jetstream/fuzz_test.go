package jetstream

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// FuzzEveryMessageIsAnEvent: what anybody may have written to the stream is an event,
// or one that cannot be read, at its place in the order; an event that can be read
// comes back the same when it is written again.
func FuzzEveryMessageIsAnEvent(f *testing.F) {
	whole, err := encode(eventstore.Event{
		Aggregate: subjects.Of(subjects.Platform, subjects.Claim, "c1"), ID: "1", Payload: &claimv1.ClaimTaken{Kind: "subdomain", Name: "a", Holder: "b"},
		Time: time.Date(2026, 1, 1, 0, 0, 0, 1, time.UTC), Source: "test", Actor: "a", Causation: "b", Correlation: "c",
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	})
	if err != nil {
		f.Fatal(err)
	}
	wire := func(m *nats.Msg) []byte {
		text := []byte("NATS/1.0\r\n")
		for name, values := range m.Header {
			for _, v := range values {
				text = append(text, name+": "+v+"\r\n"...)
			}
		}
		return append(text, "\r\n"...)
	}
	f.Add(whole.Subject, wire(whole), whole.Data)
	f.Add("evt.acme.deployment.1.StopRequested", []byte("NATS/1.0\r\nce-type: slipway.deployment.v1.StopRequested\r\nce-time: 2026-13-01T00:00:00Z\r\n\r\n"), []byte{0xff})
	f.Add("evt.acme.deployment.1", []byte("NATS/1.0 503 No\r\n\r\n"), []byte{})
	f.Add("evt.acme.deployment.*.>", []byte("NATS/1.0\r\nce-type: google.protobuf.Any\r\nce-time: 9999-12-31T23:59:59+23:59\r\n\r\n"), []byte("\n\x01x"))
	f.Add("evt....", []byte{}, []byte(nil))
	f.Fuzz(func(t *testing.T, subject string, header, data []byte) {
		stored := storedMessage{Subject: subject, Sequence: 7, Headers: header, Data: data}
		got, err := decode(stored.Subject, stored.header(), stored.Data, stored.Sequence)
		if got.Sequence != 7 || got.Payload == nil {
			t.Fatalf("not an event at its place: %+v", got)
		}
		if err != nil {
			if got.Readable() {
				t.Fatalf("it is called readable, and %v", err)
			}
			return
		}
		if !got.Readable() || got.ID == "" {
			return
		}
		msg, err := encode(got.Event)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := decode(msg.Subject, msg.Header, msg.Data, 7)
		if err != nil || !again.Time.Equal(got.Time) || again.ID != got.ID || !sameBytes(again.Payload, got.Payload) {
			t.Fatalf("it came back as %+v, %v, want %+v", again, err, got)
		}
	})
}

// sameBytes compares payloads as they are written: a NaN is not equal to itself.
func sameBytes(a, b proto.Message) bool {
	options := proto.MarshalOptions{Deterministic: true}
	x, errX := options.Marshal(a)
	y, errY := options.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
