package view

import (
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/protobuf/proto"

	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

// FuzzEveryValueIsReadOrLeftOut: what anybody may have put into a bucket is a value,
// or counted as left out; what is read can be written again.
func FuzzEveryValueIsReadOrLeftOut(f *testing.F) {
	for _, m := range []proto.Message{
		&routingv1.Route{Host: "a.test", Upstreams: []*routingv1.Upstream{{InstanceId: "i", Address: "10.0.0.1:80"}}},
		&nodev1.DesiredInstance{InstanceId: "i", Port: 1<<32 - 1, LastAttempt: 1<<32 - 1},
		&healthv1.Target{Address: "[::1]:80", HealthCheck: nil},
		&nodev1.Node{NodeId: "n", MemoryMb: 1<<32 - 1},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("VIEW.a.test", data, []byte("NATS/1.0\r\nKV-Operation: DEL\r\n\r\n"))
	}
	f.Add("", []byte{0xff}, []byte("NATS/1.0 408\r\n\r\n"))
	f.Fuzz(func(t *testing.T, key string, data, header []byte) {
		if parsed, err := nats.DecodeHeadersMsg(header); err == nil {
			isDeletion(parsed)
		}
		read(t, key, data, func() *routingv1.Route { return &routingv1.Route{} })
		read(t, key, data, func() *nodev1.DesiredInstance { return &nodev1.DesiredInstance{} })
		read(t, key, data, func() *healthv1.Target { return &healthv1.Target{} })
		read(t, key, data, func() *nodev1.Node { return &nodev1.Node{} })
	})
}

func read[T proto.Message](t *testing.T, key string, data []byte, newT func() T) {
	t.Helper()
	left, err := noop.Meter{}.Int64Counter("left")
	if err != nil {
		t.Fatal(err)
	}
	v := &View[T]{bucket: "VIEW", newT: newT, log: slog.New(slog.DiscardHandler), left: left, label: metric.WithAttributes()}
	entry, ok := v.decode(v.key(key), data, 7)
	if !ok {
		if v.Skipped() != 1 {
			t.Fatalf("a value was left out and not counted")
		}
		return
	}
	if _, err := proto.Marshal(entry.Value); err != nil || entry.Revision != 7 {
		t.Fatalf("what was read cannot be written: %v", err)
	}
}
