package view

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/internal/tail"
)

const (
	reopenFirst = 10 * time.Millisecond
	reopenMost  = 500 * time.Millisecond
	// quiet is after how long without a message a snapshot looks again whether what
	// it still waits for is there at all; it may have expired.
	quiet = 100 * time.Millisecond
)

// Snapshot returns all entries whose key matches the filter (a key with wildcards;
// ">" is all), by key. Errors: ErrUnavailable.
func (v *View[T]) Snapshot(ctx context.Context, filter string) ([]Entry[T], error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	entries := map[string]Entry[T]{}
	w := &watch[T]{view: v, filter: filter, known: map[string]version{}, handle: func(_ context.Context, c Change[T]) error {
		if c.Deleted {
			delete(entries, c.Key)
		} else {
			entries[c.Key] = c.Entry
		}
		return nil
	}}
	reader, err := w.open(ctx)
	if err == nil {
		defer reader.Close()
		err = w.snapshot(ctx, reader)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s of %s: %w: %w", filter, v.bucket, ErrUnavailable, err)
	}
	all := make([]Entry[T], 0, len(entries))
	for _, e := range entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry[T]) int { return strings.Compare(a.Key, b.Key) })
	return all, nil
}

// Watch hands over every entry whose key matches the filter, calls ready (unless
// nil) once when that was all there was, then every change, until ctx ends (then it
// returns nil) or handle fails (then that error). handle is never called
// concurrently. After a lost connection it compares what is there with what it has
// handed over, so that no change and no deletion is missed; of several changes of a
// key meanwhile only the last is seen.
func (v *View[T]) Watch(ctx context.Context, filter string, handle func(context.Context, Change[T]) error, ready func()) error {
	w := &watch[T]{view: v, filter: filter, handle: handle, ready: ready, known: map[string]version{}}
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = reopenFirst, reopenMost
	for {
		err := w.run(ctx, wait.Reset)
		switch {
		case ctx.Err() != nil:
			return nil
		case w.failed != nil:
			return w.failed
		case tail.Permanent(err):
			return fmt.Errorf("watch %s of %s: %w", filter, v.bucket, err)
		}
		v.log.DebugContext(ctx, "watching the bucket again", "filter", filter, "reason", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// watch is one Watch over all its readers.
type watch[T proto.Message] struct {
	view   *View[T]
	filter string
	handle func(context.Context, Change[T]) error
	ready  func()             // nil once called
	known  map[string]version // of each key handed over and not deleted
	failed error              // of handle
}

// version tells two values of a key apart, even when a bucket in memory has begun
// its revisions anew.
type version struct {
	revision uint64
	stored   time.Time
}

// run watches with one reader until that breaks, handle fails or ctx ends.
func (w *watch[T]) run(ctx context.Context, opened func()) error {
	reader, err := w.open(ctx)
	if err != nil {
		return err
	}
	defer reader.Close()
	opened()
	if err := w.snapshot(ctx, reader); err != nil {
		return err
	}
	if w.ready != nil {
		w.ready()
		w.ready = nil
	}
	for {
		m, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		if err := w.apply(ctx, m, nil); err != nil {
			return err
		}
	}
}

func (w *watch[T]) open(ctx context.Context) (*tail.Reader, error) {
	return tail.Open(ctx, w.view.js, tail.Config{
		Stream: streamName(w.view.bucket), Filters: []string{w.view.subject(w.filter)}, LastPerSubject: true,
	})
}

// snapshot reads what there is and then deletes what was known and is not there.
// It is complete when it has come to the last message that was there when it began,
// or past it, as every key's last message is before that.
func (w *watch[T]) snapshot(ctx context.Context, reader *tail.Reader) error {
	target, err := w.view.lastRevision(ctx, w.filter)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for position := uint64(0); position < target; {
		m, ok, err := reader.TryNext(ctx, quiet)
		if err != nil {
			return err
		}
		if !ok {
			if target, err = w.view.lastRevision(ctx, w.filter); err != nil {
				return err
			}
			continue
		}
		position = m.Sequence
		if err := w.apply(ctx, m, seen); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(w.known)) {
		if seen[key] {
			continue
		}
		delete(w.known, key)
		if err := w.tell(ctx, Change[T]{Entry: Entry[T]{Key: key}, Deleted: true}); err != nil {
			return err
		}
	}
	return nil
}

// apply hands a message over, unless it is known already.
func (w *watch[T]) apply(ctx context.Context, m tail.Message, seen map[string]bool) error {
	key := w.view.key(m.Subject)
	if isDeletion(m.Header) {
		_, known := w.known[key]
		if !known {
			return nil
		}
		delete(w.known, key)
		return w.tell(ctx, Change[T]{Entry: Entry[T]{Key: key, Revision: m.Sequence}, Deleted: true})
	}
	if seen != nil {
		seen[key] = true
	}
	this := version{revision: m.Sequence, stored: m.Time}
	if w.known[key] == this {
		return nil
	}
	entry, ok := w.view.decode(key, m.Data, m.Sequence)
	if !ok {
		return nil
	}
	w.known[key] = this
	return w.tell(ctx, Change[T]{Entry: entry})
}

func (w *watch[T]) tell(ctx context.Context, c Change[T]) error {
	w.failed = w.handle(ctx, c)
	return w.failed
}

// stored is a message as the stream's leader answers it.
type stored struct {
	Subject  string `json:"subject"`
	Sequence uint64 `json:"seq"`
	Headers  []byte `json:"hdrs,omitempty"`
}

func (s *stored) header() nats.Header {
	header, err := nats.DecodeHeadersMsg(s.Headers)
	if err != nil {
		return nats.Header{}
	}
	return header
}

// lastRevision is that of the last change of a key that matches; 0 when there is none.
func (v *View[T]) lastRevision(ctx context.Context, filter string) (uint64, error) {
	last, err := v.last(ctx, filter)
	if err != nil || last == nil {
		return 0, err
	}
	return last.Sequence, nil
}

// last asks the stream's leader, not a replica that may lag; nil when nothing matches.
func (v *View[T]) last(ctx context.Context, filter string) (*stored, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	body, err := json.Marshal(map[string]string{"last_by_subj": v.subject(filter)})
	if err != nil {
		return nil, fmt.Errorf("last of %s in %s: %w", filter, v.bucket, err)
	}
	answer, err := v.js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+streamName(v.bucket), body)
	if err != nil {
		return nil, fmt.Errorf("last of %s in %s: %w: %w", filter, v.bucket, ErrUnavailable, err)
	}
	var response struct {
		Error   *jetstream.APIError `json:"error,omitempty"`
		Message *stored             `json:"message,omitempty"`
	}
	if err := json.Unmarshal(answer.Data, &response); err != nil {
		return nil, fmt.Errorf("last of %s in %s: %w", filter, v.bucket, err)
	}
	if e := response.Error; e != nil {
		if e.Code == http.StatusNotFound && e.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return nil, nil
		}
		return nil, fmt.Errorf("last of %s in %s: %w: %w", filter, v.bucket, ErrUnavailable, e)
	}
	return response.Message, nil
}
