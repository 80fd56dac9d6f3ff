package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	deciders  = 4
	claimants = 2
)

// book is what the writers were promised.
type book struct {
	mu sync.Mutex
	// acknowledged is the sequence of each event by id.
	acknowledged map[string]uint64
	// decided is how many events each decider has decided; all are in the log in the
	// end, once.
	decided map[int]int
	// rivals says how many names were fought for.
	rivals int
	// last is when each writer got its last answer.
	last [deciders + claimants]time.Time
	gap  gap
}

// gap is the longest time without an acknowledgement: for anybody, and for the
// writer that waited longest.
type gap struct{ any, one time.Duration }

func (g gap) String() string {
	return fmt.Sprintf("%d ms (of one client %d ms)", g.any.Milliseconds(), g.one.Milliseconds())
}

func (b *book) note(writer int, ids map[string]uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.measure()
	b.last[writer] = time.Now()
	for id, sequence := range ids {
		b.acknowledged[id] = sequence
	}
}

func (b *book) measure() {
	newest, oldest := b.last[0], b.last[0]
	for _, at := range b.last {
		if at.After(newest) {
			newest = at
		}
		if at.Before(oldest) {
			oldest = at
		}
	}
	b.gap.any = max(b.gap.any, time.Since(newest))
	b.gap.one = max(b.gap.one, time.Since(oldest))
}

// during returns the gap while do ran, and until every writer had an answer after it.
func (b *book) during(t *testing.T, do func()) gap {
	t.Helper()
	b.mu.Lock()
	b.gap = gap{}
	b.mu.Unlock()
	do()
	done := time.Now()
	eventually(t, "every client goes on", func(context.Context) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for w, at := range b.last {
			if at.Before(done) {
				return fmt.Errorf("writer %d waits for %s", w, time.Since(at))
			}
		}
		return nil
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gap
}

func (b *book) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.acknowledged)
}

// connect connects to the cluster as a service does, that server's first.
func connect(t *testing.T, s *servers, first int) jetstream.JetStream {
	t.Helper()
	late := time.Now().Add(patience)
	for {
		conn, err := natsconn.Connect(natsconn.Config{
			URL: s.url(first), SeedFile: filepath.Join(s.keys(), string(natsconn.RolePlatform)+".nk"),
			Name: fmt.Sprintf("client %d", first), Log: slog.New(slog.DiscardHandler),
		})
		if err == nil {
			t.Cleanup(conn.Close)
			js, err := jetstream.New(conn)
			if err != nil {
				t.Fatal(err)
			}
			return js
		}
		if time.Now().After(late) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// decide appends n events of one aggregate, each behind the last, as a service's
// command handler does: when it is not told whether an event was written, it looks.
func (b *book) decide(ctx context.Context, store eventstore.Store, w int) error {
	a := subjects.Of("acme", subjects.Deployment, fmt.Sprintf("d%d", w))
	last := uint64(0)
	for n := 0; ctx.Err() == nil; n++ {
		b.mu.Lock()
		b.decided[w] = n + 1
		b.mu.Unlock()
		e := event(a, n)
		for {
			// Once decided it is carried through, also when the test is ending.
			attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			sequence, err := store.Append(attempt, eventstore.Expected{Event: e, LastSequence: last})
			if err != nil {
				sequence, last, err = look(attempt, store, e, last, err)
			}
			cancel()
			if err != nil {
				return fmt.Errorf("decider %d: %w", w, err)
			}
			if sequence > 0 {
				last = sequence
				b.note(w, map[string]uint64{e.ID: sequence})
				break
			}
		}
	}
	return nil
}

// look finds out what became of an event whose append did not succeed: its sequence
// when it is there, or else behind which sequence to append it now.
func look(ctx context.Context, store eventstore.Store, e eventstore.Event, last uint64, cause error) (sequence, behind uint64, err error) {
	if !errors.Is(cause, eventstore.ErrUnavailable) && !errors.Is(cause, eventstore.ErrConflict) {
		return 0, 0, cause
	}
	for {
		events, err := store.Load(ctx, e.Aggregate, last)
		if err == nil {
			for _, found := range events {
				last = found.Sequence
				if found.ID == e.ID {
					return found.Sequence, last, nil
				}
			}
			return 0, last, nil
		}
		select {
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("%w; and then: %w", cause, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// claim fights for one name after the other: the claim and the event that needs it
// are one batch, so that exactly one rival gets each.
func (b *book) claim(ctx context.Context, store eventstore.Store, w int) error {
	for n := 0; ctx.Err() == nil; n++ {
		b.mu.Lock()
		b.rivals = max(b.rivals, n+1)
		b.mu.Unlock()
		taken, need := claimEvents(w, n)
		for {
			attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			sequence, err := store.AppendBatch(attempt, []eventstore.Expected{{Event: need}, {Event: taken}})
			settled := err == nil
			if err == nil {
				b.note(deciders+w, map[string]uint64{need.ID: sequence - 1, taken.ID: sequence})
			} else if sequence, behind, lookErr := look(attempt, store, taken, 0, err); lookErr != nil {
				cancel()
				return fmt.Errorf("claimant %d: %w", w, lookErr)
			} else if sequence > 0 {
				b.note(deciders+w, map[string]uint64{need.ID: sequence - 1, taken.ID: sequence})
				settled = true
			} else {
				settled = behind > 0 // the other one has it
				if settled {
					b.note(deciders+w, nil)
				}
			}
			cancel()
			if settled {
				break
			}
		}
	}
	return nil
}

func claimEvents(w, n int) (taken, need eventstore.Event) {
	taken = event(subjects.Of(subjects.Platform, subjects.Claim, fmt.Sprintf("c%d", n)), w)
	need = event(subjects.Of("acme", subjects.Deployment, fmt.Sprintf("r%d-%d", n, w)), 0)
	return taken, need
}

func event(a subjects.Aggregate, n int) eventstore.Event {
	return eventstore.Event{
		Aggregate: a, ID: fmt.Sprintf("%s-%d", a.ID, n),
		Payload: wrapperspb.Bytes(make([]byte, 300)), Time: time.Unix(int64(n), 0), Source: "cluster",
	}
}

// write runs the writers, spread over the servers, until stop is called; stop
// returns when each has carried its last through.
func (b *book) write(t *testing.T, s *servers) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	run := func(w int, do func(context.Context, eventstore.Store, int) error, number int) {
		store := eventlog.New(connect(t, s, w%size), slog.New(slog.DiscardHandler))
		running.Go(func() {
			if err := do(ctx, store, number); err != nil {
				t.Error(err)
			}
		})
	}
	for w := range deciders {
		run(w, b.decide, w)
	}
	for w := range claimants {
		run(deciders+w, b.claim, w)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}
