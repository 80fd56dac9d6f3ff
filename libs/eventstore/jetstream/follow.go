package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/internal/tail"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// batchSize is the most events a handler gets at once.
	batchSize = 500
	// decodedAlone is how many events one goroutine decodes.
	decodedAlone = 125
	// flushAfter is how long a batch waits for events that the server has said are
	// on their way; one that nothing follows is handed over at once.
	flushAfter = 2 * time.Millisecond
	// reopenFirst and reopenMost bound the wait before a lost reader is replaced.
	reopenFirst = 10 * time.Millisecond
	reopenMost  = 500 * time.Millisecond
)

// Follow hands over every matching event; see eventstore.Store. It returns an error
// of its own only for filters that the server refuses and for a connection that was
// closed for good.
func (s *Store) Follow(ctx context.Context, after uint64, handle func(context.Context, []eventstore.Recorded) error, caughtUp func(), filters ...string) error {
	if len(filters) == 0 {
		return errors.New("follow: no filters")
	}
	f := &follower{store: s, position: after, handle: handle, caughtUp: caughtUp, filters: widest(filters)}
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = reopenFirst, reopenMost
	for {
		err := f.read(ctx, wait.Reset)
		switch {
		case ctx.Err() != nil:
			return nil
		case f.failed != nil:
			return f.failed
		case tail.Permanent(err):
			return fmt.Errorf("follow %v: %w", filters, err)
		}
		s.log.DebugContext(ctx, "following the log again", "after", f.position, "reason", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// follower is one Follow and how far it is, over all its readers.
type follower struct {
	store    *Store
	filters  []string
	handle   func(context.Context, []eventstore.Recorded) error
	caughtUp func() // nil once called
	position uint64 // last sequence handled
	// target is the last sequence that was in the log when Follow began.
	begun  bool
	target uint64
	failed error // of handle
}

// read follows with one reader until that breaks, handle fails or ctx ends.
func (f *follower) read(ctx context.Context, opened func()) error {
	if err := f.begin(ctx); err != nil {
		return err
	}
	reader, err := tail.Open(ctx, f.store.js, tail.Config{
		Stream: subjects.StreamEvents, Filters: f.filters, After: f.position,
	})
	if err != nil {
		return err
	}
	defer reader.Close()
	opened()
	for {
		if f.position >= f.target {
			f.reportCaughtUp()
		}
		batch, last, err := f.collect(ctx, reader)
		if err != nil {
			return err
		}
		if len(batch) > 0 {
			if err := f.handle(ctx, batch); err != nil {
				f.failed = err
				return err
			}
		}
		f.position = last.Sequence
	}
}

// begin asks once, before the first reader, how far there is to catch up.
func (f *follower) begin(ctx context.Context) error {
	if f.begun || f.caughtUp == nil {
		return nil
	}
	for _, filter := range f.filters {
		last, err := f.store.LastSequence(ctx, filter)
		if err != nil {
			return err
		}
		f.target = max(f.target, last)
	}
	f.begun = true
	return nil
}

// collect waits for a message and takes what comes with it. What it returns before
// an error is read again by the next reader.
func (f *follower) collect(ctx context.Context, reader *tail.Reader) ([]eventstore.Recorded, tail.Message, error) {
	last, err := reader.Next(ctx)
	if err != nil {
		return nil, last, err
	}
	messages := append(make([]tail.Message, 0, batchSize), last)
	for len(messages) < batchSize {
		patience := time.Duration(0)
		if last.Pending > 0 {
			patience = flushAfter
		}
		next, ok, err := reader.TryNext(ctx, patience)
		if err != nil {
			return nil, last, err
		}
		if !ok {
			break
		}
		last = next
		messages = append(messages, next)
	}
	return f.decode(ctx, messages), last, nil
}

// decode reads a batch of messages, a long one on several processors: it is what
// catching up takes longest for.
func (f *follower) decode(ctx context.Context, messages []tail.Message) []eventstore.Recorded {
	parts := make([][]eventstore.Recorded, (len(messages)+decodedAlone-1)/decodedAlone)
	var decoding sync.WaitGroup
	for i := range parts {
		some := messages[i*decodedAlone : min((i+1)*decodedAlone, len(messages))]
		part := func() {
			parts[i] = make([]eventstore.Recorded, 0, len(some))
			for _, m := range some {
				parts[i] = f.add(ctx, parts[i], m)
			}
		}
		if len(parts) == 1 {
			part()
			return parts[0]
		}
		decoding.Go(part)
	}
	decoding.Wait()
	return slices.Concat(parts...)
}

func (f *follower) add(ctx context.Context, batch []eventstore.Recorded, m tail.Message) []eventstore.Recorded {
	event, err := decode(m.Subject, m.Header, m.Data, m.Sequence)
	if err != nil {
		f.store.skipped.Add(1)
		f.store.watch.skipped.Add(ctx, 1)
		f.store.log.WarnContext(ctx, "an event cannot be read", "sequence", m.Sequence, "subject", m.Subject, "error", err)
	}
	return append(batch, event)
}

func (f *follower) reportCaughtUp() {
	if f.caughtUp != nil {
		f.caughtUp()
		f.caughtUp = nil
	}
}

// widest leaves out the filters that another one covers, which the server refuses.
func widest(filters []string) []string {
	var kept []string
	for i, f := range filters {
		covered := false
		for j, other := range filters {
			covered = covered || covers(other, f) && (other != f || j < i) && i != j
		}
		if !covered {
			kept = append(kept, f)
		}
	}
	return kept
}

// covers reports whether every subject that narrow matches is one that wide matches.
func covers(wide, narrow string) bool {
	w, n := strings.Split(wide, "."), strings.Split(narrow, ".")
	for i, token := range w {
		switch {
		case i >= len(n):
			return false
		case token == ">":
			return true
		case n[i] == ">", token != "*" && token != n[i]:
			return false
		}
	}
	return len(w) == len(n)
}
