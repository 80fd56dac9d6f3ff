// Package readmodel answers questions about deployments from PostgreSQL: rows
// that are a pure function of the log.
package readmodel

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// Name and Version of the projection; a change of its tables or folds is a new version.
const (
	Name    = "deployments"
	Version = 3
)

// Tables is the SQL that makes the tables.
//
//go:embed schema.sql
var Tables string

// Filters are the events it reads.
func Filters() []string { return []string{subjects.KindFilter(subjects.Deployment)} }

// Projection is the read model of the events in store.
func Projection(store eventstore.Store) projection.Projection {
	return projection.Projection{
		Name: Name, Version: Version, Filters: Filters(), Tables: Tables,
		Apply: NewFolder(store).Apply,
		Build: func() projection.Builder {
			return projection.Builder{Fold: newBuilder().fold, Again: func(ctx context.Context, tx pgx.Tx, events []eventstore.Recorded) error {
				return NewFolder(store).Apply(ctx, tx, events)
			}}
		},
		Repair: repairer{store}.repair,
	}
}

// Folder turns events into rows. It keeps the deployments it has met in memory;
// one it has not met is folded from the log.
type Folder struct {
	store  eventstore.Store
	states map[string]deployment.State
}

// NewFolder returns a folder that has met none.
func NewFolder(store eventstore.Store) *Folder {
	return &Folder{store: store, states: map[string]deployment.State{}}
}

// Apply writes what a batch of events changes. When it fails it forgets the batch's
// deployments: the state before an event is what the log says, also after an event
// whose rows could not be written.
func (f *Folder) Apply(ctx context.Context, tx pgx.Tx, events []eventstore.Recorded) error {
	states, changed := map[string]deployment.State{}, newRows()
	err := func() error {
		for _, rec := range events {
			before, ok := states[rec.Aggregate.ID]
			if !ok {
				var err error
				if before, err = f.before(ctx, rec); err != nil {
					return err
				}
			}
			states[rec.Aggregate.ID] = changed.take(before, rec)
		}
		return writeAll(ctx, tx, changed)
	}()
	for _, rec := range events {
		delete(f.states, rec.Aggregate.ID)
	}
	if err != nil {
		return err
	}
	for id, s := range states {
		f.states[id] = s
	}
	return nil
}

// before is the state that the event was appended to. Nothing comes before what makes
// a deployment: it was appended as the first.
func (f *Folder) before(ctx context.Context, rec eventstore.Recorded) (deployment.State, error) {
	if _, first := rec.Payload.(*deploymentv1.DeploymentRequested); first {
		return deployment.State{}, nil
	}
	if s, ok := f.states[rec.Aggregate.ID]; ok && s.Sequence < rec.Sequence {
		return s, nil
	}
	earlier, err := f.store.Load(ctx, rec.Aggregate, 0)
	if err != nil {
		return deployment.State{}, fmt.Errorf("loading %s: %w", rec.Aggregate, err)
	}
	var s deployment.State
	for _, e := range earlier {
		if e.Sequence >= rec.Sequence {
			break
		}
		s = deployment.Evolve(s, e)
	}
	return s, nil
}

// builder folds the whole log, from its first event on; it asks nobody.
type builder struct {
	states map[string]deployment.State
	seen   *seen
}

func newBuilder() *builder {
	return &builder{states: map[string]deployment.State{}, seen: newSeen()}
}

func (b *builder) fold(_ context.Context, events []eventstore.Recorded) (projection.Write, error) {
	changed := newRows()
	changed.seen = b.seen
	for _, rec := range events {
		b.states[rec.Aggregate.ID] = changed.take(b.states[rec.Aggregate.ID], rec)
	}
	w, err := changed.settle()
	if err != nil {
		return func(context.Context, pgx.Tx) error { return err }, nil
	}
	return w.write, nil
}

// repairer writes one deployment's rows anew.
type repairer struct{ store eventstore.Store }

func (r repairer) repair(ctx context.Context, tx pgx.Tx, a subjects.Aggregate, through uint64) error {
	events, err := r.store.Load(ctx, a, 0)
	if err != nil {
		return fmt.Errorf("loading %s: %w", a, err)
	}
	changed := newRows()
	var state deployment.State
	for _, rec := range events {
		if rec.Sequence > through {
			break
		}
		state = changed.take(state, rec)
	}
	for _, statement := range []string{"DELETE FROM deployments WHERE id = $1", "DELETE FROM deployment_logs WHERE deployment_id = $1"} {
		if _, err := tx.Exec(ctx, statement, a.ID); err != nil {
			return fmt.Errorf("removing the rows of %s: %w", a, err)
		}
	}
	return writeAll(ctx, tx, changed)
}

func writeAll(ctx context.Context, tx pgx.Tx, r *rows) error {
	w, err := r.settle()
	if err != nil {
		return err
	}
	return w.write(ctx, tx)
}
