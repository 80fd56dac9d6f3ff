package readmodel

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/scheduler/audit"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// rows is what events make of the tables: of each row only what comes of it in the
// end, so that a batch costs three statements however long it is.
type rows struct {
	states  map[string]deployment.State
	ids     []string
	entries map[entryKey]*entry
	keys    []entryKey
	// seen is what a rebuild has made rows of; nil when any row may be there already.
	seen *seen
}

type entryKey struct{ deployment, key string }

// entry is an entry of the audit log, or what changes of one that was made before.
type entry struct {
	audit.Change
	sequence uint64
}

func newRows() *rows {
	return &rows{states: map[string]deployment.State{}, entries: map[entryKey]*entry{}}
}

// take notes what the event changes and returns the state after it.
func (r *rows) take(before deployment.State, rec eventstore.Recorded) deployment.State {
	id := rec.Aggregate.ID
	for _, c := range audit.Fold(before, rec) {
		r.note(entryKey{id, c.Key}, c, rec.Sequence)
	}
	if _, known := r.states[id]; !known {
		r.ids = append(r.ids, id)
	}
	after := deployment.Evolve(before, rec)
	r.states[id] = after
	return after
}

// note adds a change to what came before it. One that makes an entry that is there
// already changes only how that ended.
func (r *rows) note(key entryKey, c audit.Change, sequence uint64) {
	e, known := r.entries[key]
	switch {
	case !known:
		r.entries[key] = &entry{Change: c, sequence: sequence}
		r.keys = append(r.keys, key)
	case c.New && e.New:
		e.Status, e.Details = c.Status, c.Details
	case c.New:
		*e = entry{Change: c, sequence: sequence}
	default:
		if c.Status != "" {
			e.Status = c.Status
		}
		e.Details = merged(e.Details, c.Details)
	}
}

// written are rows ready to be written, those that cannot be there yet apart.
type written struct {
	deployments, newDeployments deploymentColumns
	entries, newEntries         entryColumns
	changes                     entryColumns
}

// settle makes the rows.
func (r *rows) settle() (*written, error) {
	w := &written{}
	for _, id := range r.ids {
		if !r.states[id].Exists() {
			continue
		}
		into := &w.deployments
		if r.seen.first(id, "") {
			into = &w.newDeployments
		}
		into.add(deployment.Summary(r.states[id]))
	}
	for _, key := range r.keys {
		e, into := r.entries[key], &w.changes
		if e.New {
			into = &w.entries
			if r.seen.first(key.deployment, key.key) {
				into = &w.newEntries
			}
		}
		if err := into.add(key.deployment, e); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// write writes them all. What cannot be there yet is copied in, the rest looks for
// the row that it changes.
func (w *written) write(ctx context.Context, tx pgx.Tx) error {
	for _, c := range []struct {
		table   string
		columns []string
		values  []any
		n       int
	}{
		{"deployments", deploymentNames, w.newDeployments.values(), len(w.newDeployments.id)},
		{"deployment_logs", entryNames, w.newEntries.values(), len(w.newEntries.key)},
	} {
		if c.n == 0 {
			continue
		}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{c.table}, c.columns, &source{columns: c.values, n: c.n, at: -1}); err != nil {
			return fmt.Errorf("copying rows of %s: %w", c.table, err)
		}
	}
	batch := &pgx.Batch{}
	if len(w.deployments.id) > 0 {
		batch.Queue(putDeployments, w.deployments.values()...)
	}
	if len(w.entries.key) > 0 {
		batch.Queue(putEntries, w.entries.values()...)
	}
	if len(w.changes.key) > 0 {
		c := &w.changes
		batch.Queue(changeEntries, c.deployment, c.key, c.status, c.details)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("writing rows: %w", err)
	}
	return nil
}
