package projection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// maxDeadLetters bounds how many are listed.
const maxDeadLetters = 1000

// countTimeout bounds the question that the gauge of waiting dead letters asks.
const countTimeout = time.Second

// ErrNoDeadLetter is returned for a sequence that is no waiting dead letter's.
var ErrNoDeadLetter = errors.New("no such dead letter")

// DeadLetter is an event whose rows could not be written: it was given up after a few
// tries, so that what follows goes on. It waits until it is replayed or dropped. The
// event itself is in the log as before.
type DeadLetter struct {
	Sequence uint64
	// Subject is the event's.
	Subject string
	EventID string
	// Message is the payload's full name.
	Message string
	// HappenedAt is when the event happened, FailedAt when it was given up.
	HappenedAt, FailedAt time.Time
	// Error is why, the last time that it was tried.
	Error   string
	payload []byte
}

// Payload decodes the event's message.
func (d DeadLetter) Payload() (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(d.Message))
	if err != nil {
		return nil, fmt.Errorf("the type %q is not known to this program: %w", d.Message, err)
	}
	m := kind.New().Interface()
	if err := proto.Unmarshal(d.payload, m); err != nil {
		return nil, fmt.Errorf("decode the dead letter %d: %w", d.Sequence, err)
	}
	return m, nil
}

func bury(ctx context.Context, tx pgx.Tx, event eventstore.Recorded, failure error) error {
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(event.Payload)
	if err != nil {
		return fmt.Errorf("encode %s: %w", event.Type(), err)
	}
	_, err = tx.Exec(ctx, `INSERT INTO dead_letters (sequence, subject, message, event_id, happened_at, payload, error, failed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, now())`,
		int64(event.Sequence), event.Aggregate.Event(event.Type()), string(event.Payload.ProtoReflect().Descriptor().FullName()),
		event.ID, event.Time, payload, failure.Error())
	if err != nil {
		return fmt.Errorf("write a dead letter: %w", err)
	}
	return nil
}

const selectLetters = `SELECT sequence, subject, event_id, message, happened_at, failed_at, error, payload FROM `

func scanLetter(row pgx.CollectableRow) (DeadLetter, error) {
	var d DeadLetter
	var sequence int64
	err := row.Scan(&sequence, &d.Subject, &d.EventID, &d.Message, &d.HappenedAt, &d.FailedAt, &d.Error, &d.payload)
	d.Sequence = uint64(sequence)
	return d, err
}

// DeadLetters returns those that wait, the oldest first, at most 1000.
func (r *Runner) DeadLetters(ctx context.Context) ([]DeadLetter, error) {
	rows, err := r.pool.Query(ctx, selectLetters+r.quotedSchema()+".dead_letters WHERE dropped_at IS NULL ORDER BY sequence LIMIT $1", maxDeadLetters)
	if err != nil {
		return nil, fmt.Errorf("projection %s: list dead letters: %w", r.p.Name, err)
	}
	all, err := pgx.CollectRows(rows, scanLetter)
	if err != nil {
		return nil, fmt.Errorf("projection %s: list dead letters: %w", r.p.Name, err)
	}
	return all, nil
}

// DeadLetter returns the one of the event with that sequence. Errors: ErrNoDeadLetter.
func (r *Runner) DeadLetter(ctx context.Context, sequence uint64) (DeadLetter, error) {
	rows, err := r.pool.Query(ctx, selectLetters+r.quotedSchema()+".dead_letters WHERE dropped_at IS NULL AND sequence = $1", int64(sequence))
	if err != nil {
		return DeadLetter{}, fmt.Errorf("projection %s: read the dead letter %d: %w", r.p.Name, sequence, err)
	}
	d, err := pgx.CollectExactlyOneRow(rows, scanLetter)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return DeadLetter{}, ErrNoDeadLetter
	case err != nil:
		return DeadLetter{}, fmt.Errorf("projection %s: read the dead letter %d: %w", r.p.Name, sequence, err)
	}
	return d, nil
}

// ReplayError is returned by Replay when the rows could not be written this time
// either; the dead letter stays, with the new reason.
type ReplayError struct{ Cause error }

func (e *ReplayError) Error() string { return "it failed again: " + e.Cause.Error() }
func (e *ReplayError) Unwrap() error { return e.Cause }

// Replay takes a dead letter in after all. With the projection's Repair the rows of
// its whole aggregate are written anew from the log, as far as the checkpoint, which
// settles every dead letter of that aggregate; without, the one event is applied now,
// out of its turn. Nothing else is applied meanwhile. Errors: ErrNoDeadLetter,
// *ReplayError.
func (r *Runner) Replay(ctx context.Context, sequence uint64) error {
	letter, err := r.DeadLetter(ctx, sequence)
	if err != nil {
		return err
	}
	aggregate, _, err := subjects.ParseEvent(letter.Subject)
	if err != nil {
		return fmt.Errorf("projection %s: the dead letter %d: %w", r.p.Name, sequence, err)
	}
	var failed *ReplayError
	err = r.fenced(ctx, func(tx pgx.Tx, position uint64) error {
		if err := r.replay(ctx, tx, aggregate, sequence, position); err != nil {
			failed = &ReplayError{Cause: err}
			return failed
		}
		gone, err := tx.Exec(ctx, "DELETE FROM dead_letters WHERE sequence = $1 OR $2 AND subject LIKE $3 AND sequence <= $4",
			int64(sequence), r.p.Repair != nil, prefix(aggregate), int64(position))
		if err == nil && gone.RowsAffected() == 0 {
			err = ErrNoDeadLetter
		}
		return err
	})
	if failed != nil && !isAway(failed.Cause) {
		if _, err := r.pool.Exec(ctx, "UPDATE "+r.quotedSchema()+".dead_letters SET error = $2 WHERE sequence = $1", int64(sequence), failed.Cause.Error()); err != nil {
			return errors.Join(failed, fmt.Errorf("write down why: %w", err))
		}
		return failed
	}
	if err != nil {
		return fmt.Errorf("projection %s: replay %d: %w", r.p.Name, sequence, err)
	}
	r.log.InfoContext(ctx, "replayed a dead letter", "sequence", sequence, "aggregate", aggregate.String())
	return nil
}

// prefix is a LIKE pattern for the subjects of an aggregate's events.
func prefix(a subjects.Aggregate) string {
	var pattern []byte
	for _, c := range []byte(a.Event("")) {
		if c == '_' || c == '%' || c == '\\' {
			pattern = append(pattern, '\\')
		}
		pattern = append(pattern, c)
	}
	return string(pattern) + "%"
}

func (r *Runner) replay(ctx context.Context, tx pgx.Tx, a subjects.Aggregate, sequence, position uint64) error {
	if r.p.Repair != nil {
		return r.p.Repair(ctx, tx, a, position)
	}
	events, err := r.store.Load(ctx, a, sequence-1)
	if err != nil {
		return fmt.Errorf("load %s: %w", a, err)
	}
	if len(events) == 0 || events[0].Sequence != sequence {
		return fmt.Errorf("the log holds no event %d of %s", sequence, a)
	}
	return r.p.Apply(ctx, tx, events[:1])
}

// Drop gives a dead letter up for good: its event stays in the log, the rows stay
// without it, and it is not listed again, also after a rebuild that meets it again.
// Errors: ErrNoDeadLetter.
func (r *Runner) Drop(ctx context.Context, sequence uint64) error {
	err := r.fenced(ctx, func(tx pgx.Tx, _ uint64) error {
		gone, err := tx.Exec(ctx, "UPDATE dead_letters SET dropped_at = now() WHERE sequence = $1 AND dropped_at IS NULL", int64(sequence))
		if err == nil && gone.RowsAffected() == 0 {
			err = ErrNoDeadLetter
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("projection %s: drop %d: %w", r.p.Name, sequence, err)
	}
	r.log.InfoContext(ctx, "dropped a dead letter", "sequence", sequence)
	return nil
}

// fenced does something in a transaction while the checkpoint cannot move.
func (r *Runner) fenced(ctx context.Context, do func(tx pgx.Tx, position uint64) error) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		if err := r.enter(ctx, tx); err != nil {
			return err
		}
		var position int64
		if err := tx.QueryRow(ctx, "SELECT position FROM checkpoint FOR UPDATE").Scan(&position); err != nil {
			return fmt.Errorf("hold the checkpoint: %w", err)
		}
		return do(tx, uint64(position))
	})
}

// countWaiting makes the gauge of dead letters that wait for somebody. It asks the
// database when it is read, since other processes bury and replay too.
func (r *Runner) countWaiting(m metric.Meter) error {
	_, err := m.Int64ObservableGauge("slipway.projection.dead_letters_waiting", metric.WithDescription("Events given up that wait to be replayed or dropped."),
		metric.WithInt64Callback(func(ctx context.Context, o metric.Int64Observer) error {
			ctx, cancel := context.WithTimeout(ctx, countTimeout)
			defer cancel()
			var n int64
			err := r.pool.QueryRow(ctx, "SELECT count(*) FROM "+r.quotedSchema()+".dead_letters WHERE dropped_at IS NULL").Scan(&n)
			if err == nil {
				o.Observe(n, r.name)
			}
			// Without a database there is no figure; Ready says that it is away.
			return nil
		}))
	return err
}
