package projection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/metric/noop"
)

const (
	// near is how many events may be missing when the live rows are held for the rest.
	near = 2000
	// rounds bounds how often it is tried to come near; after that the rest is what it is.
	rounds = 20
	// holdTimeout bounds waiting for a transaction that holds the live rows.
	holdTimeout = "SET LOCAL lock_timeout TO '10s'"
)

// ErrRebuilding is returned while another rebuild of the same projection is under way,
// in whatever process.
var ErrRebuilding = errors.New("a rebuild is under way")

// Progress says how far a rebuild is: the sequence that it has reached and the one
// that the live rows had reached when that was last looked at.
type Progress struct{ Position, Target uint64 }

// Rebuilt is what came of a rebuild.
type Rebuilt struct {
	// Events were read and Rows made from them.
	Events, Rows uint64
	// Compared is the checkpoint at which old and new rows were compared.
	Compared uint64
	// Differences are rows that were not the same byte for byte, at most 20, in words.
	Differences []string
	// Swapped says that the new rows are the live ones now.
	Swapped bool
	// Build, Compare and Held are how long making the rows took, comparing them, and
	// for how long no event was applied to the live rows.
	Build, Compare, Held time.Duration
}

// Identical says that old and new rows were the same, byte for byte.
func (r Rebuilt) Identical() bool { return len(r.Differences) == 0 }

// Rebuild makes all rows anew from the first event, in a schema beside the live one,
// while Run goes on; compares old and new, row by row and byte by byte, as both were at
// one checkpoint; and puts the new ones in place of the old, at one moment, between two
// events. Readers go on and see either. When there are differences the live rows stay,
// unless accept is true. The old rows, and those of older versions, are dropped after
// that, by Run: nobody waits for it. What an interrupted rebuild leaves, the next one
// removes. Errors: ErrRebuilding; eventstore.ErrUnavailable.
func (r *Runner) Rebuild(ctx context.Context, accept bool) (Rebuilt, error) {
	result, err := r.rebuildOnce(ctx, accept)
	if err != nil {
		return result, fmt.Errorf("projection %s: rebuild: %w", r.p.Name, err)
	}
	r.log.InfoContext(ctx, "rebuilt", "events", result.Events, "rows", result.Rows, "differences", len(result.Differences),
		"swapped", result.Swapped, "build", result.Build, "compare", result.Compare, "held", result.Held)
	return result, nil
}

// Rebuilding says how far a rebuild by this runner is, and whether there is one.
func (r *Runner) Rebuilding() (Progress, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rebuild == nil {
		return Progress{}, false
	}
	return *r.rebuild, true
}

func (r *Runner) setRebuilding(p *Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rebuild = p
}

func (r *Runner) rebuildOnce(ctx context.Context, accept bool) (result Rebuilt, err error) {
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return result, awayError{fmt.Errorf("connect: %w", err)}
	}
	defer conn.Release()
	var alone bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtext($1), 0)", r.schema).Scan(&alone); err != nil {
		return result, fmt.Errorf("look for other rebuilds: %w", err)
	}
	if !alone {
		return result, ErrRebuilding
	}
	defer func() {
		// A connection that is not there any more has no lock either.
		_, _ = conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock(hashtext($1), 0)", r.schema)
	}()
	b, err := r.beside(ctx)
	if err != nil {
		return result, err
	}
	defer r.setRebuilding(nil)
	defer func() {
		r.rebuilt.Store(r.rebuilt.Load() || result.Swapped)
		if result.Swapped && r.running.Load() {
			r.sweepSoon()
			return
		}
		err = errors.Join(err, b.clean(context.WithoutCancel(ctx)))
	}()

	began := time.Now()
	if err := b.comeNear(ctx); err != nil {
		return result, err
	}
	compare, err := b.snapshot(ctx, conn)
	if err != nil {
		return result, err
	}
	result.Build, began = time.Since(began), time.Now()
	result.Compared = b.next.Checkpoint()
	result.Rows, result.Differences, err = compare(ctx)
	if err != nil {
		return result, err
	}
	result.Compare, result.Events, result.Held = time.Since(began), b.events, b.held
	if !result.Identical() && !accept {
		return result, nil
	}
	if err := b.comeNear(ctx); err != nil {
		return result, err
	}
	err = b.swap(ctx, conn)
	result.Swapped, result.Events, result.Held = err == nil, b.events, b.held
	return result, err
}

// building is one rebuild under way.
type building struct {
	live, next *Runner
	builder    Builder
	events     uint64
	held       time.Duration
}

// beside makes an empty schema of the same tables.
func (r *Runner) beside(ctx context.Context) (*building, error) {
	next := &Runner{
		pool: r.pool, store: r.store, p: r.p, schema: r.schema + "_next", building: true,
		log: r.log.With("rebuild", true), name: r.name, moved: make(chan struct{}),
	}
	// What is applied here is no news.
	var errs [2]error
	next.applied, errs[0] = noop.Meter{}.Int64Counter("applied")
	next.dead, errs[1] = noop.Meter{}.Int64Counter("dead")
	b := &building{live: r, next: next, builder: r.p.builder()}
	if err := errors.Join(append(errs[:], b.clean(ctx))...); err != nil {
		return nil, err
	}
	position, err := next.setUp(ctx)
	if err != nil {
		return nil, err
	}
	next.setPosition(position)
	return b, nil
}

// clean removes what this or an earlier rebuild has left.
func (b *building) clean(ctx context.Context) error {
	if err := b.live.dropFormer(ctx); err != nil {
		return err
	}
	return b.live.drop(ctx, b.next.schema)
}

// comeNear builds until little is missing of what the live rows hold.
func (b *building) comeNear(ctx context.Context) error {
	for range rounds {
		target, err := b.live.readCheckpoint(ctx)
		if err != nil {
			return err
		}
		before := b.events
		if err := b.upTo(ctx, target); err != nil {
			return err
		}
		if b.events-before <= near {
			return nil
		}
	}
	b.live.log.WarnContext(ctx, "the rebuild does not come nearer: the live rows are held for longer", "position", b.next.Checkpoint())
	return nil
}

// hold keeps the live checkpoint where it is, with lock, brings the new rows to the
// same, and does something there.
func (b *building) hold(ctx context.Context, conn *pgxpool.Conn, lock string, do func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := b.live.enter(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, holdTimeout); err != nil {
			return fmt.Errorf("bound the wait: %w", err)
		}
		if _, err := tx.Exec(ctx, lock); err != nil {
			return fmt.Errorf("hold the live rows: %w", err)
		}
		began := time.Now()
		defer func() { b.held += time.Since(began) }()
		var position int64
		if err := tx.QueryRow(ctx, "SELECT position FROM checkpoint").Scan(&position); err != nil {
			return fmt.Errorf("read the checkpoint: %w", err)
		}
		if err := b.upTo(ctx, uint64(position)); err != nil {
			return err
		}
		return do(tx)
	})
}

// snapshot returns a comparison of old and new as they are at one checkpoint. The live
// rows are held only until the database has a snapshot of both; comparing needs no lock.
func (b *building) snapshot(ctx context.Context, conn *pgxpool.Conn) (compare func(context.Context) (uint64, []string, error), err error) {
	if err := b.analyze(ctx); err != nil {
		return nil, err
	}
	both, err := b.live.pool.Acquire(ctx)
	if err != nil {
		return nil, awayError{fmt.Errorf("connect: %w", err)}
	}
	defer func() {
		if err != nil {
			both.Release()
		}
	}()
	tx, err := both.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin to compare: %w", err)
	}
	err = b.hold(ctx, conn, "SELECT FROM checkpoint FOR UPDATE", func(pgx.Tx) error {
		// The first question takes the snapshot that all later ones see.
		var old, made int64
		err := tx.QueryRow(ctx, "SELECT l.position, n.position FROM "+b.live.quotedSchema()+".checkpoint l, "+b.next.quotedSchema()+".checkpoint n").Scan(&old, &made)
		if err == nil && old != made {
			err = fmt.Errorf("the live rows are at %d and the new ones at %d", old, made)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take a snapshot of both: %w", err), tx.Rollback(context.WithoutCancel(ctx)))
	}
	return func(ctx context.Context) (uint64, []string, error) {
		defer both.Release()
		rows, differences, err := comparison{tx: tx, live: b.live.schema, next: b.next.schema}.run(ctx)
		return rows, differences, errors.Join(err, tx.Rollback(context.WithoutCancel(ctx)))
	}, nil
}

// analyze lets the database know what it has, so that it compares in good order.
func (b *building) analyze(ctx context.Context) error {
	tables, err := tablesOf(ctx, b.live.pool, b.next.schema)
	if err != nil {
		return err
	}
	for _, table := range tables {
		if _, err := b.live.pool.Exec(ctx, "ANALYZE "+pgx.Identifier{b.next.schema, table}.Sanitize()); err != nil {
			return fmt.Errorf("analyze %s: %w", table, err)
		}
	}
	return nil
}

// swap puts the new schema in place of the live one. The lock is on the table, not on
// its row, and the old checkpoint is spoiled: whoever waits for it, in whatever process,
// comes to the new one.
func (b *building) swap(ctx context.Context, conn *pgxpool.Conn) error {
	live, next, former := b.live.quotedSchema(), b.next.quotedSchema(), pgx.Identifier{b.live.formerly()}.Sanitize()
	return b.hold(ctx, conn, "LOCK TABLE checkpoint IN ACCESS EXCLUSIVE MODE", func(tx pgx.Tx) error {
		for _, statement := range []string{
			// The same dead letters are still given up, since the same time.
			"UPDATE " + next + ".dead_letters n SET failed_at = l.failed_at, dropped_at = l.dropped_at FROM " + live + ".dead_letters l WHERE n.sequence = l.sequence",
			"UPDATE " + live + ".checkpoint SET position = -1",
			"ALTER SCHEMA " + live + " RENAME TO " + former,
			"ALTER SCHEMA " + next + " RENAME TO " + live,
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("swap: %w", err)
			}
		}
		return nil
	})
}
