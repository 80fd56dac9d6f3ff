package projection

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ours is what every projection's schema holds besides its own tables. Of clocks and
// machines only dead_letters tells, in failed_at, dropped_at and error.
const ours = `
CREATE TABLE checkpoint (
	one         boolean PRIMARY KEY DEFAULT true CHECK (one),
	position    bigint NOT NULL,
	fingerprint text   NOT NULL
);
CREATE TABLE dead_letters (
	sequence    bigint PRIMARY KEY,
	subject     text  NOT NULL,
	message     text  NOT NULL,
	event_id    text  NOT NULL,
	happened_at timestamptz NOT NULL,
	payload     bytea NOT NULL,
	error       text  NOT NULL,
	failed_at   timestamptz NOT NULL,
	dropped_at  timestamptz
);`

// errChanged is permanent: only another version helps.
var errChanged = errors.New("its tables have changed under the same version: raise the version")

// setUp makes the projection's schema unless it is there, and returns its position.
func (r *Runner) setUp(ctx context.Context) (position uint64, err error) {
	err = pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		// Of several processes that start together one makes the schema.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext($1))", r.schema); err != nil {
			return fmt.Errorf("wait for others: %w", err)
		}
		var there bool
		if err := tx.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", r.quotedSchema()).Scan(&there); err != nil {
			return fmt.Errorf("look for the schema: %w", err)
		}
		if !there {
			if _, err := tx.Exec(ctx, "CREATE SCHEMA "+r.quotedSchema()); err != nil {
				return fmt.Errorf("make the schema: %w", err)
			}
		}
		if err := r.enter(ctx, tx); err != nil {
			return err
		}
		if !there {
			if err := r.makeTables(ctx, tx); err != nil {
				return err
			}
		}
		var stored int64
		var fingerprint string
		if err := tx.QueryRow(ctx, "SELECT position, fingerprint FROM checkpoint").Scan(&stored, &fingerprint); err != nil {
			return fmt.Errorf("read the checkpoint: %w", err)
		}
		if fingerprint != r.p.fingerprint() {
			return errChanged
		}
		position = uint64(stored)
		return nil
	})
	var refused *pgconn.PgError
	if err != nil && !errors.Is(err, errChanged) && !errors.As(err, &refused) {
		// Not what was asked for is wrong but the way to the database.
		err = awayError{err}
	}
	return position, err
}

func (r *Runner) readCheckpoint(ctx context.Context) (uint64, error) {
	var position int64
	if err := r.pool.QueryRow(ctx, "SELECT position FROM "+r.quotedSchema()+".checkpoint").Scan(&position); err != nil {
		return 0, awayError{fmt.Errorf("read the checkpoint: %w", err)}
	}
	return uint64(position), nil
}

func (r *Runner) makeTables(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, ours); err != nil {
		return fmt.Errorf("make the checkpoint: %w", err)
	}
	if _, err := tx.Exec(ctx, r.p.Tables); err != nil {
		return fmt.Errorf("make the tables: %w", err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO checkpoint (position, fingerprint) VALUES (0, $1)", r.p.fingerprint()); err != nil {
		return fmt.Errorf("make the checkpoint: %w", err)
	}
	return nil
}

// quotedSchema is the schema for SQL; validate has seen that it needs no more than this.
func (r *Runner) quotedSchema() string { return `"` + r.schema + `"` }

// enter makes unqualified names those of the projection's schema.
func (r *Runner) enter(ctx context.Context, tx pgx.Tx) error {
	settings := "SET LOCAL search_path TO " + r.quotedSchema()
	if r.building {
		// What a crash takes is built again; the swap's own commit waits for the disk.
		settings += "; SET LOCAL synchronous_commit TO off"
	}
	if _, err := tx.Exec(ctx, settings); err != nil {
		return fmt.Errorf("enter the schema: %w", err)
	}
	return nil
}
