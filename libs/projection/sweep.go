package projection

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// formerly is the schema of the rows that a rebuild has replaced.
func (r *Runner) formerly() string { return r.schema + "_former" }

// sweepSoon has Run drop what nobody reads any more.
func (r *Runner) sweepSoon() {
	select {
	case r.rubbish <- struct{}{}:
	default:
	}
}

// sweep drops what rebuilds have left, until ctx ends. It takes long for many rows, and
// waits for readers that still look at them; what it could not drop the next rebuild does.
func (r *Runner) sweep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.rubbish:
		}
		err := r.dropFormer(ctx)
		// Who rebuilds runs this version on purpose; before that an older one may run yet.
		if r.rebuilt.Load() {
			err = errors.Join(err, r.dropOlder(ctx))
		}
		if err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "rows that nobody reads any more are still there", "error", err)
		}
	}
}

func (r *Runner) dropFormer(ctx context.Context) error { return r.drop(ctx, r.formerly()) }

// drop drops a schema unless it is gone. Of several who drop it one does.
func (r *Runner) drop(ctx context.Context, schema string) error {
	err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext($1), 1)", schema); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{schema}.Sanitize()+" CASCADE")
		return err
	})
	if err != nil {
		return fmt.Errorf("drop %s: %w", schema, err)
	}
	return nil
}

// dropOlder drops the schemas of the projection's older versions.
func (r *Runner) dropOlder(ctx context.Context) error {
	rows, err := r.pool.Query(ctx, "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, $1)", r.p.schemaPrefix())
	if err != nil {
		return fmt.Errorf("look for older versions: %w", err)
	}
	schemas, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for older versions: %w", err)
	}
	for _, schema := range schemas {
		version, err := strconv.Atoi(strings.TrimPrefix(schema, r.p.schemaPrefix()))
		if err != nil || version >= r.p.Version {
			continue
		}
		if err := r.drop(ctx, schema); err != nil {
			return err
		}
		r.log.InfoContext(ctx, "dropped an older version's rows", "schema", schema)
	}
	return nil
}
