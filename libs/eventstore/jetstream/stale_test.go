package jetstream

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/internal/natstest"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// The replica of this test has nothing yet: the leader has to be asked for all.
func TestWhatAReplicaDoesNotHaveYetIsLoadedFromTheLeader(t *testing.T) {
	t.Parallel()
	const stale = "STALE"
	js := natstest.Start(t).Events()
	a := subjects.Of("acme", subjects.Deployment, "d1")
	writer := New(js, slog.New(slog.DiscardHandler))
	for n := range 5 {
		if _, err := writer.Record(t.Context(), eventstore.Event{Aggregate: a, ID: fmt.Sprint(n), Payload: wrapperspb.Int64(int64(n)), Time: time.Unix(0, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	nc := js.Conn()
	if _, err := nc.Subscribe(stale+".DIRECT.GET."+subjects.StreamEvents, func(m *nats.Msg) {
		nothing := nats.NewMsg(m.Reply)
		nothing.Header.Set("Status", "404")
		if err := nc.PublishMsg(nothing); err != nil {
			t.Errorf("answer as a replica: %v", err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	lagging, err := jetstream.NewWithAPIPrefix(nc, stale)
	if err != nil {
		t.Fatal(err)
	}
	reader := New(lagging, slog.New(slog.DiscardHandler))
	reader.replicated.Store(replicationSome)
	for after := range 6 {
		events, err := reader.Load(t.Context(), a, uint64(after))
		if err != nil || len(events) != 5-after {
			t.Errorf("%d events after %d, %v; wanted %d", len(events), after, err, 5-after)
		}
	}
}
