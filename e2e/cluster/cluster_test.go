package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/eventstore"
	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const patience = 60 * time.Second

func TestCommandsGoOnWhenAServerDiesAndWhenOneIsCutOff(t *testing.T) {
	s := startCluster(t)
	admin := connect(t, s, 0)
	b := &book{acknowledged: map[string]uint64{}, decided: map[int]int{}}
	b.moveIn(t, s, admin)
	provision(t, admin)
	stop := b.write(t, s)
	b.waitForMore(t, 200)
	rest := b.during(t, func() { b.waitForMore(t, 400) })

	leader := leaderOf(t, admin)
	t.Logf("kill %s, the leader of the log", name(leader))
	killed := b.during(t, func() {
		if err := s.kill(leader); err != nil {
			t.Fatal(err)
		}
		b.waitForMore(t, 300)
	})
	back := b.during(t, func() {
		if err := s.start(leader); err != nil {
			t.Fatal(err)
		}
		waitForReplicas(t, admin)
		b.waitForMore(t, 200)
	})

	leader = leaderOf(t, admin)
	t.Logf("cut %s off, the leader of the log", name(leader))
	cut := b.during(t, func() {
		if err := s.network.cut(leader); err != nil {
			t.Fatal(err)
		}
		b.waitForMore(t, 300)
	})
	mended := b.during(t, func() {
		if err := s.network.mend(leader); err != nil {
			t.Fatal(err)
		}
		waitForReplicas(t, admin)
		b.waitForMore(t, 200)
	})
	stop()
	t.Logf("%d events acknowledged; the longest time without an acknowledgement: %s at rest, %s with the leader killed, %s as it came back, %s with the leader cut off, %s as it came back",
		b.count(), rest, killed, back, cut, mended)
	for n := range size {
		b.check(t, readAll(t, s, n), name(n))
	}
	b.backUp(t, s)
}

func startCluster(t *testing.T) *servers {
	t.Helper()
	w, err := newNetwork(size)
	if err != nil {
		t.Fatal(err)
	}
	s, err := configure(os.Getenv(envDir), t.Name(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for n := range size {
				text, _ := os.ReadFile(s.log(n)) // what there is
				t.Logf("--- %s\n%s", name(n), tail(string(text), 40))
			}
		}
		if err := errors.Join(s.stop(), w.close()); err != nil {
			t.Error(err)
		}
	})
	for n := range size {
		if err := s.start(n); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// provision makes the platform's streams, as soon as the cluster can.
func provision(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	eventually(t, "the streams are made", func(ctx context.Context) error { return natsconn.Provision(ctx, js, size) })
	waitForReplicas(t, js)
}

// leaderOf is the number of the server that leads the stream of events.
func leaderOf(t *testing.T, js jetstream.JetStream) int {
	t.Helper()
	var leader int
	eventually(t, "the log has a leader", func(ctx context.Context) error {
		stream, err := js.Stream(ctx, subjects.StreamEvents)
		if err != nil {
			return err
		}
		leader, err = number(stream.CachedInfo().Cluster.Leader)
		return err
	})
	return leader
}

// waitForReplicas waits until all servers have all events.
func waitForReplicas(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	eventually(t, "every server has every event", func(ctx context.Context) error {
		stream, err := js.Stream(ctx, subjects.StreamEvents)
		if err != nil {
			return err
		}
		replicas := stream.CachedInfo().Cluster.Replicas
		if len(replicas) != size-1 {
			return fmt.Errorf("%d replicas are known", len(replicas))
		}
		for _, r := range replicas {
			if !r.Current || r.Offline {
				return fmt.Errorf("%s lags by %d", r.Name, r.Lag)
			}
		}
		return nil
	})
}

// waitForMore waits until that many more events are acknowledged.
func (b *book) waitForMore(t *testing.T, events int) {
	t.Helper()
	target := b.count() + events
	eventually(t, "commands go on", func(context.Context) error {
		if n := b.count(); n < target {
			return fmt.Errorf("%d of %d events", n, target)
		}
		return nil
	})
}

func eventually(t *testing.T, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, 5*time.Second)
		err := try(attempt)
		done()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// readAll reads the log by way of one server.
func readAll(t *testing.T, s *servers, n int) []eventstore.Recorded {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	caughtUp := errors.New("caught up")
	following, done := context.WithCancelCause(ctx)
	var all []eventstore.Recorded
	err := eventlog.New(connect(t, s, n), slog.New(slog.DiscardHandler)).Follow(following, 0,
		func(_ context.Context, events []eventstore.Recorded) error {
			all = append(all, events...)
			return nil
		}, func() { done(caughtUp) }, subjects.AllEvents)
	if err != nil || !errors.Is(context.Cause(following), caughtUp) {
		t.Fatalf("read the log: %v, %v", err, context.Cause(following))
	}
	return all
}

// check holds the log against what was promised.
func (b *book) check(t *testing.T, all []eventstore.Recorded, from string) {
	t.Helper()
	there := map[string]uint64{}
	next := map[string]int{}
	for i, e := range all {
		if e.Sequence != uint64(i+1) {
			t.Fatalf("%s: event %d is at %d", from, i+1, e.Sequence)
		}
		if there[e.ID] != 0 {
			t.Errorf("%s: %s is there twice: %d and %d", from, e.ID, there[e.ID], e.Sequence)
		}
		there[e.ID] = e.Sequence
		if want := fmt.Sprintf("%s-%d", e.Aggregate.ID, next[e.Aggregate.ID]); e.Aggregate.Kind == subjects.Deployment && e.ID != want {
			t.Errorf("%s: %s came when %s was next", from, e.ID, want)
		}
		next[e.Aggregate.ID]++
	}
	for id, sequence := range b.acknowledged {
		if there[id] != sequence {
			t.Errorf("%s: %s was acknowledged at %d and is at %d", from, id, sequence, there[id])
		}
	}
	for w, events := range b.decided {
		if got := next[fmt.Sprintf("d%d", w)]; got != events {
			t.Errorf("%s: %d events of decider %d, who decided %d", from, got, w, events)
		}
	}
	for n := range b.rivals {
		owners := 0
		for w := range claimants {
			taken, need := claimEvents(w, n)
			if (there[taken.ID] == 0) != (there[need.ID] == 0) {
				t.Errorf("%s: half of the batch for name %d is there", from, n)
			}
			if there[taken.ID] != 0 {
				owners++
			}
		}
		if owners != 1 {
			t.Errorf("%s: name %d has %d owners", from, n, owners)
		}
	}
}
