package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/internal/natstest"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const deadline = 15 * time.Second

var aggregate = subjects.Of("acme", subjects.Deployment, "d1")

func open(js natsjs.JetStream) *jetstream.Store {
	return jetstream.New(js, slog.New(slog.DiscardHandler))
}

func number(n int) eventstore.Event {
	return eventstore.Event{Aggregate: aggregate, ID: fmt.Sprintf("e%d", n), Payload: wrapperspb.Int64(int64(n)), Time: time.Unix(int64(n), 0)}
}

func record(t testing.TB, s eventstore.Store, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if _, err := s.Record(t.Context(), number(n)); err != nil {
			t.Fatal(err)
		}
	}
}

// collector follows all events until the test ends.
type collector struct {
	mu      sync.Mutex
	got     []uint64
	arrived chan struct{}
}

func collect(t *testing.T, s eventstore.Store) *collector {
	t.Helper()
	c := &collector{arrived: make(chan struct{}, 1)}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Follow(ctx, 0, func(_ context.Context, events []eventstore.Recorded) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, e := range events {
				c.got = append(c.got, e.Sequence)
			}
			select {
			case c.arrived <- struct{}{}:
			default:
			}
			return nil
		}, nil, subjects.AllEvents)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	return c
}

// waitEach waits until the sequences 1 to n have come, each once and in order.
func (c *collector) waitEach(t *testing.T, n int) {
	t.Helper()
	late := time.After(deadline)
	for {
		c.mu.Lock()
		got := append([]uint64(nil), c.got...)
		c.mu.Unlock()
		for i, sequence := range got {
			if sequence != uint64(i)+1 {
				t.Fatalf("at place %d came event %d", i+1, sequence)
			}
		}
		if len(got) >= n {
			return
		}
		select {
		case <-c.arrived:
		case <-late:
			t.Fatalf("%d events of %d came", len(got), n)
		}
	}
}

func TestFollowSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	c := collect(t, open(server.Events()))
	writer := open(server.Connect())
	record(t, writer, 1, 20)
	c.waitEach(t, 20)
	for round := 1; round <= 2; round++ {
		server.Down()
		server.Up()
		record(t, open(server.Connect()), 20*round+1, 20*round+20)
		c.waitEach(t, 20*round+20)
	}
}

func TestFollowMissesNothingWhileItsLineIsCut(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	writer := open(server.Events())
	js, line := server.ConnectOver()
	c := collect(t, open(js))
	for round := range 5 {
		record(t, writer, round*40+1, round*40+20)
		line.Cut()
		record(t, writer, round*40+21, round*40+40)
		line.Mend()
	}
	c.waitEach(t, 200)
}

func TestALogThatIsAwayIsSaidToBe(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	s := open(server.Events())
	record(t, s, 1, 1)
	server.Down()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, appended := s.Append(ctx, eventstore.Expected{Event: number(2), LastSequence: 1})
	_, recorded := s.Record(ctx, number(3))
	_, loaded := s.Load(ctx, aggregate, 0)
	_, last := s.LastSequence(ctx, subjects.AllEvents)
	for call, err := range map[string]error{"append": appended, "record": recorded, "load": loaded, "last": last} {
		if !errors.Is(err, eventstore.ErrUnavailable) {
			t.Errorf("%s: %v, wanted ErrUnavailable", call, err)
		}
	}
}

func TestAConnectionClosedForGoodEndsAFollow(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t).Events()
	nothing := func(context.Context, []eventstore.Recorded) error { return nil }
	err := open(js).Follow(t.Context(), 0, nothing, js.Conn().Close, subjects.AllEvents)
	if err == nil {
		t.Error("follow returned nil though its context has not ended")
	}
}

// What one event looks like to a plain NATS client is a promise.
func TestAnEventIsACloudEventToAnyClient(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t).Events()
	e := number(7)
	e.Source, e.Actor, e.Correlation = "scheduler", "operator-1", "request-1"
	e.Time = time.Date(2026, 3, 1, 12, 0, 0, 5, time.FixedZone("elsewhere", 3600))
	if _, err := open(js).Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), subjects.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject != "evt.acme.deployment.d1.Int64Value" {
		t.Errorf("the subject is %s", m.Subject)
	}
	for name, want := range map[string]string{
		"ce-specversion": "1.0", "ce-id": "e7", "ce-type": "google.protobuf.Int64Value", "ce-source": "scheduler",
		"ce-time": "2026-03-01T11:00:00.000000005Z", "ce-subject": "deployment/d1", "content-type": "application/protobuf",
		"Slipway-Actor": "operator-1", "Slipway-Correlation": "request-1",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("the header %s is %q, wanted %q", name, got, want)
		}
	}
}
