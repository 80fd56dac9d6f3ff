package projection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slipway-paas/slipway/libs/eventstore"
)

// chunk is how many events a rebuild writes in one transaction.
const chunk = 20_000

// patience is how long a rebuild waits for the next event of which it knows that it is.
const patience = 10 * time.Second

// errDone ends following the log.
var errDone = errors.New("built far enough")

// folded is a chunk of events with what writes their rows.
type folded struct {
	events []eventstore.Recorded
	write  Write
}

// upTo builds the rows of all events up to and with target, which is the live
// checkpoint or an earlier one. Reading, folding and writing go on side by side.
func (b *building) upTo(ctx context.Context, target uint64) error {
	if b.next.Checkpoint() >= target {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	chunks, writes := make(chan []eventstore.Recorded, 1), make(chan folded, 1)
	group.Go(func() error {
		defer close(chunks)
		return b.read(ctx, target, chunks)
	})
	group.Go(func() error {
		defer close(writes)
		for events := range chunks {
			write, err := b.builder.Fold(ctx, events)
			if err != nil {
				return fmt.Errorf("fold events %d to %d: %w", events[0].Sequence, events[len(events)-1].Sequence, err)
			}
			select {
			case writes <- folded{events, write}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	group.Go(func() error {
		for f := range writes {
			if err := b.next.applyAll(ctx, f.events, f.write, b.builder.Again); err != nil {
				return err
			}
			b.events += uint64(len(f.events))
			b.live.setRebuilding(&Progress{Position: b.next.Checkpoint(), Target: target})
		}
		return nil
	})
	return group.Wait()
}

// read hands over chunks of events until there are no more up to target.
func (b *building) read(ctx context.Context, target uint64, chunks chan<- []eventstore.Recorded) error {
	following, stop := context.WithCancel(ctx)
	defer stop()
	var collected []eventstore.Recorded
	flush := func() error {
		if len(collected) == 0 {
			return nil
		}
		select {
		case chunks <- collected:
			collected = make([]eventstore.Recorded, 0, chunk)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	handle := func(_ context.Context, events []eventstore.Recorded) error {
		for _, e := range events {
			if e.Sequence > target {
				break
			}
			collected = append(collected, e)
		}
		if events[len(events)-1].Sequence >= target {
			return errDone
		}
		if len(collected) >= chunk {
			return flush()
		}
		return nil
	}
	// Events of types that this program does not know are left out. The last one may be
	// such, when another program has applied it.
	silence := time.AfterFunc(patience, stop)
	defer silence.Stop()
	err := b.live.store.Follow(following, b.next.Checkpoint(), func(ctx context.Context, events []eventstore.Recorded) error {
		// That writing is slow is no silence of the log.
		silence.Stop()
		defer silence.Reset(patience)
		return handle(ctx, events)
	}, nil, b.live.p.Filters...)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errDone):
		return flush()
	case err != nil:
		return fmt.Errorf("read the log: %w", err)
	}
	return fmt.Errorf("read the log: there is nothing more for %s, and the live rows are at event %d", patience, target)
}
