package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	singles = 6
	pairs   = 2
	// enough is how many events are acknowledged before the power goes.
	enough   = 600
	patience = 25 * time.Second
)

func TestWhatWasAcknowledgedSurvivesAPowerCut(t *testing.T) {
	t.Parallel()
	for cut := 1; cut <= 3; cut++ {
		t.Run(fmt.Sprintf("cut %d", cut), func(t *testing.T) {
			t.Parallel()
			left := suffer(t, "", false, enough+cut*37)
			if left.lost > 0 || left.torn > 0 {
				t.Errorf("of %d acknowledged events %d are lost; %d batches are there by half", left.acknowledged, left.lost, left.torn)
			}
			t.Log(left)
		})
	}
}

// The two ways to lose what was acknowledged, which the test above would see.
func TestTheCutBites(t *testing.T) {
	t.Parallel()
	t.Run("a server that syncs now and then", func(t *testing.T) {
		t.Parallel()
		left := suffer(t, "", true, enough)
		if left.lost == 0 {
			t.Errorf("nothing was lost of %d events: the cut proves nothing", left.acknowledged)
		}
		t.Log(left)
	})
	t.Run("a disk that is never asked to flush its cache", func(t *testing.T) {
		t.Parallel()
		left := suffer(t, "barrier=0", false, enough)
		if left.lost == 0 {
			t.Errorf("nothing was lost of %d events: the cut proves nothing", left.acknowledged)
		}
		t.Log(left)
	})
}

// outcome is what a power cut left.
type outcome struct {
	acknowledged, lost int
	// kept were not acknowledged but are there all the same, as they may.
	kept int
	torn int
	rate float64
	// gone says that not even the file systems could be opened.
	gone error
}

func (o outcome) String() string {
	text := fmt.Sprintf("%d events acknowledged (%.0f a second), %d lost, %d more kept, %d batches torn", o.acknowledged, o.rate, o.lost, o.kept, o.torn)
	if o.gone != nil {
		text += fmt.Sprintf("; the disk could not be read: %v", o.gone)
	}
	return text
}

// suffer appends to a server on a disk with those mount options, cuts the power
// after that many acknowledgements and counts what is left.
func suffer(t *testing.T, options string, unsynced bool, after int) outcome {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a disk whose power can be cut needs root, for loop devices")
	}
	dir := t.TempDir()
	keys, copied := filepath.Join(dir, "keys"), filepath.Join(dir, "copied.img")
	before, later := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	for _, path := range []string{before, later} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d, err := newDisk(t.Context(), before, options)
	if err != nil {
		t.Fatal(err)
	}
	closed := sync.OnceValue(d.close)
	t.Cleanup(func() { _ = closed() })
	s := startServer(t, d, keys, unsynced)
	store := s.open()
	// What the stream is made of is old: only its events are at stake.
	if err := d.sync(); err != nil {
		t.Fatal(err)
	}
	book := &book{acknowledged: map[string]uint64{}, enough: make(chan struct{}), after: after}
	begun := time.Now()
	var took time.Duration
	book.write(t, store, func() {
		select {
		case <-book.enough:
		case <-time.After(patience):
			t.Errorf("the server does not acknowledge %d events in %s", after, patience)
		}
		took = time.Since(begun)
		s.freeze()
		if err := d.cut(t.Context(), copied); err != nil {
			t.Error(err)
		}
	})
	s.kill()
	if err := closed(); err != nil {
		t.Fatal(err)
	}

	found := outcome{acknowledged: len(book.acknowledged), rate: float64(len(book.acknowledged)) / took.Seconds()}
	rest, err := reopen(copied, later)
	if err != nil {
		found.lost, found.gone = found.acknowledged, err
		return found
	}
	t.Cleanup(func() {
		if err := rest.close(); err != nil {
			t.Error(err)
		}
	})
	store = startServer(t, rest, keys, unsynced).open()
	found.count(book, readAll(t, store))
	if found.lost == 0 {
		goesOn(t, store)
	}
	return found
}

// book is kept outside of the machine that suffers.
type book struct {
	mu sync.Mutex
	// acknowledged is the sequence of each event by id.
	acknowledged map[string]uint64
	// batches are the ids of all that were tried together.
	batches [][2]string
	// enough is closed when after events are acknowledged.
	enough chan struct{}
	after  int
}

func (b *book) note(sequence uint64, ids ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, id := range ids {
		b.acknowledged[id] = sequence - uint64(len(ids)-1-i)
		if len(b.acknowledged) == b.after {
			close(b.enough)
		}
	}
}

func (b *book) try(first, second string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.batches = append(b.batches, [2]string{first, second})
}

// write appends from several writers at once, each by the expected sequence, alone
// and in batches, until the power goes.
func (b *book) write(t *testing.T, store eventstore.Store, powerGoes func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	var off atomic.Bool
	report := func(err error) {
		if ctx.Err() == nil && !off.Load() {
			t.Errorf("append: %v", err)
		}
	}
	for w := range singles {
		writers.Go(func() {
			last := uint64(0)
			for n := 0; ctx.Err() == nil; n++ {
				e := event(subjects.Deployment, w, n)
				sequence, err := store.Append(ctx, eventstore.Expected{Event: e, LastSequence: last})
				if err != nil {
					report(err)
					return
				}
				last = sequence
				b.note(sequence, e.ID)
			}
		})
	}
	for w := range pairs {
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				one, two := event(subjects.Deployment, 1000*(w+1)+n, 0), event(subjects.Claim, 1000*(w+1)+n, 0)
				b.try(one.ID, two.ID)
				sequence, err := store.AppendBatch(ctx, []eventstore.Expected{{Event: one}, {Event: two}})
				if err != nil {
					report(err)
					return
				}
				b.note(sequence, one.ID, two.ID)
			}
		})
	}
	powerGoes() // takes long enough for the last acknowledgements to arrive
	off.Store(true)
	stop()
	writers.Wait()
}

func event(kind string, aggregate, n int) eventstore.Event {
	id := fmt.Sprintf("%s%d", kind, aggregate)
	return eventstore.Event{
		Aggregate: subjects.Of("acme", kind, id), ID: fmt.Sprintf("%s-%d", id, n),
		Payload: wrapperspb.Bytes(make([]byte, 300)), Time: time.Unix(int64(n), 0), Source: "powercut",
	}
}

// readAll returns the sequence of every event by id.
func readAll(t *testing.T, store eventstore.Store) map[string]uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := map[string]uint64{}
	caughtUp := errors.New("caught up")
	following, done := context.WithCancelCause(ctx)
	err := store.Follow(following, 0, func(_ context.Context, events []eventstore.Recorded) error {
		for _, e := range events {
			if old, twice := all[e.ID]; twice {
				return fmt.Errorf("%s is there twice: %d and %d", e.ID, old, e.Sequence)
			}
			all[e.ID] = e.Sequence
		}
		return nil
	}, func() { done(caughtUp) }, subjects.AllEvents)
	if err != nil || !errors.Is(context.Cause(following), caughtUp) {
		t.Fatalf("read the log after the cut: %v, %v", err, context.Cause(following))
	}
	return all
}

func (o *outcome) count(b *book, there map[string]uint64) {
	for id, sequence := range b.acknowledged {
		if there[id] != sequence {
			o.lost++
		}
	}
	for id := range there {
		if _, ok := b.acknowledged[id]; !ok {
			o.kept++
		}
	}
	for _, pair := range b.batches {
		if (there[pair[0]] == 0) != (there[pair[1]] == 0) {
			o.torn++
		}
	}
}

// goesOn makes sure that the expected sequences hold: a decision can be appended
// behind what is there, and not behind what is no longer the last.
func goesOn(t *testing.T, store eventstore.Store) {
	t.Helper()
	a := event(subjects.Deployment, 0, 0).Aggregate
	last, err := store.LastSequence(t.Context(), a.Filter())
	if err != nil || last == 0 {
		t.Fatalf("the last sequence of %s after the cut: %d, %v", a, last, err)
	}
	next := event(subjects.Deployment, 0, 1<<30)
	if _, err := store.Append(t.Context(), eventstore.Expected{Event: next, LastSequence: last - 1}); !errors.Is(err, eventstore.ErrConflict) {
		t.Errorf("append behind an older event after the cut: %v, want ErrConflict", err)
	}
	if _, err := store.Append(t.Context(), eventstore.Expected{Event: next, LastSequence: last}); err != nil {
		t.Errorf("append after the cut: %v", err)
	}
}
