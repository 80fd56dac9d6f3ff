package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/slipway-paas/slipway/libs/eventstore"
)

// tries is how often one event that fails by itself is tried.
const tries = 3

// errFenced is returned when the checkpoint is not where this runner left it.
var errFenced = errors.New("the checkpoint was moved by another runner")

// awayError is a failure of the database, not of what was asked of it.
type awayError struct{ error }

func (e awayError) Unwrap() error { return e.error }

// isAway reports whether to try the same again later.
func isAway(err error) bool {
	var away awayError
	if errors.As(err, &away) {
		return true
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:2] {
		case "08", // connection exception
			"25", // invalid transaction state: a standby is read-only for now
			"40", // rolled back: deadlock, serialization
			"53", // insufficient resources
			"55", // object not in prerequisite state, lock not available
			"57", // operator intervention: shutdown, cancel
			"58": // system error
			return true
		}
		return false
	}
	var connect *pgconn.ConnectError
	return errors.As(err, &connect)
}

// handle applies a batch, whatever it takes: it waits for the database, gives up
// single events that fail by themselves, and leaves out what another runner has
// applied. Its errors are ctx's, and errFenced when the checkpoint went back.
func (r *Runner) handle(ctx context.Context, batch []eventstore.Recorded) error {
	for {
		// Another runner may have been further than this one's last batch.
		position := r.Checkpoint()
		batch = slices.DeleteFunc(batch, func(e eventstore.Recorded) bool { return e.Sequence <= position })
		if len(batch) == 0 {
			return nil
		}
		err := r.applyBatch(ctx, batch)
		if !errors.Is(err, errFenced) {
			return err
		}
		var now uint64
		if err := r.untilThere(ctx, func() error { now, err = r.readCheckpoint(ctx); return err }); err != nil {
			return err
		}
		if now <= r.Checkpoint() {
			return errFenced
		}
		r.setPosition(now)
	}
}

func (r *Runner) applyBatch(ctx context.Context, batch []eventstore.Recorded) error {
	return r.applyAll(ctx, batch, func(ctx context.Context, tx pgx.Tx) error { return r.p.Apply(ctx, tx, batch) }, r.p.Apply)
}

// applyAll applies a batch, or its halves when that fails: in a few steps one event
// that cannot be applied stands alone, and becomes a dead letter.
func (r *Runner) applyAll(ctx context.Context, batch []eventstore.Recorded, first Write, again Apply) error {
	attempts := 1
	if len(batch) == 1 {
		attempts = tries
	}
	var err error
	for range attempts {
		err = r.untilThere(ctx, func() error { return r.apply(ctx, batch, first) })
		if err == nil || errors.Is(err, errFenced) || ctx.Err() != nil {
			return err
		}
	}
	if len(batch) == 1 {
		return r.giveUp(ctx, batch, err)
	}
	r.log.DebugContext(ctx, "a batch failed: trying its halves", "events", len(batch), "error", err)
	half := len(batch) / 2
	for _, part := range [][]eventstore.Recorded{batch[:half], batch[half:]} {
		write := func(ctx context.Context, tx pgx.Tx) error { return again(ctx, tx, part) }
		if err := r.applyAll(ctx, part, write, again); err != nil {
			return err
		}
	}
	return nil
}

// giveUp makes one event a dead letter.
func (r *Runner) giveUp(ctx context.Context, one []eventstore.Recorded, failure error) error {
	event := one[0]
	r.log.ErrorContext(ctx, "gave up an event: it is a dead letter now",
		"sequence", event.Sequence, "aggregate", event.Aggregate.String(), "type", event.Type(), "error", failure)
	err := r.untilThere(ctx, func() error {
		return r.apply(ctx, one, func(ctx context.Context, tx pgx.Tx) error { return bury(ctx, tx, event, failure) })
	})
	if err == nil {
		r.dead.Add(ctx, 1, r.name)
	}
	return err
}

// untilThere does something again as long as the database is away.
func (r *Runner) untilThere(ctx context.Context, do func() error) error {
	wait := retries()
	for {
		err := do()
		if err == nil || !isAway(err) {
			r.setTrouble(ctx, nil)
			return err
		}
		r.setTrouble(ctx, err)
		if !sleep(ctx, wait.NextBackOff()) {
			return ctx.Err()
		}
	}
}

// apply writes the rows of events and moves the checkpoint, in one transaction. The
// checkpoint is moved first: its row lock keeps another runner waiting, and then
// tells it that the events are done.
func (r *Runner) apply(ctx context.Context, events []eventstore.Recorded, write Write) error {
	from, to := r.Checkpoint(), events[len(events)-1].Sequence
	tx, err := r.pool.Begin(ctx)
	if err != nil {
		return awayError{fmt.Errorf("begin: %w", err)}
	}
	// After a commit this does nothing; otherwise there is an error to return already.
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := r.enter(ctx, tx); err != nil {
		return lost(tx, err)
	}
	moved, err := tx.Exec(ctx, "UPDATE checkpoint SET position = $1 WHERE position = $2", int64(to), int64(from))
	if err != nil {
		return lost(tx, fmt.Errorf("move the checkpoint: %w", err))
	}
	if moved.RowsAffected() == 0 {
		return errFenced
	}
	if err := write(ctx, tx); err != nil {
		return lost(tx, fmt.Errorf("apply events %d to %d: %w", events[0].Sequence, to, err))
	}
	if err := tx.Commit(ctx); err != nil {
		// Whether it was committed is not known; if it was, the checkpoint will say so.
		if errors.Is(err, pgx.ErrTxCommitRollback) {
			return fmt.Errorf("commit: %w", err)
		}
		return lost(tx, fmt.Errorf("commit: %w", err))
	}
	r.setPosition(to)
	r.applied.Add(ctx, int64(len(events)), r.name)
	return nil
}

// lost marks an error that came with the loss of the connection.
func lost(tx pgx.Tx, err error) error {
	if tx.Conn().IsClosed() {
		return awayError{err}
	}
	return err
}
