package feed

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// watchdog notices a watch that says nothing although the bucket moved on, or a
// bucket that was made anew and counts from one again.
type watchdog struct {
	bucket jetstream.KeyValue
	seen   uint64
	last   uint64
}

// check returns why the view must be read anew, or nil. A bucket that does not
// answer is no reason: the table stays.
func (w *watchdog) check(ctx context.Context, applied uint64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	last, err := lastSequence(ctx, w.bucket)
	if err != nil {
		return nil
	}
	behind, before := w.last > applied && w.seen == applied, w.last
	w.seen, w.last = applied, last
	switch {
	case last < applied:
		return fmt.Errorf("the bucket is at revision %d, the table at %d", last, applied)
	case behind:
		return fmt.Errorf("the bucket was at revision %d a while ago, the table still is at %d", before, applied)
	}
	return nil
}
