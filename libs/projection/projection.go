// Package projection turns the event log into PostgreSQL rows: in order, in
// batches, rows and checkpoint in one transaction, so that the rows are a pure
// function of the log, whatever happens to the process or to the database.
//
// A projection lives in a schema named by its name and version. A new version
// builds its schema beside the old one's and takes over when it has caught up (Ready).
// Rebuild makes the same version anew beside itself, proves that the rows are what the
// log says, and has those of older versions dropped: by then nothing runs them.
//
// An event whose rows cannot be written becomes a dead letter, and what follows goes
// on; see DeadLetter.
package projection

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Projection says what to make of which events.
type Projection struct {
	// Name is lower-case letters, digits and underscores, at most 40.
	Name string
	// Version, from 1, must be raised whenever Tables or what Apply writes changes.
	Version int
	// Filters are the subjects of the events it needs; they must not overlap.
	Filters []string
	// Tables is the SQL that makes its tables, unqualified: they are made in its schema.
	Tables string
	// Apply writes rows for events, which come in order, at most 500 at a time; names
	// are those of Tables, unqualified. It may be called again for the same events
	// after its transaction was rolled back, so it must do nothing else, and it must
	// depend on nothing but the log and its own rows: no clock, no random numbers, and
	// not on how the events were put into batches.
	Apply Apply
	// Build begins to make all rows anew, beside the live ones; nil when Apply
	// remembers nothing from call to call and is fast enough for that.
	Build func() Builder
	// Repair writes what the log says of one aggregate, up to and with the event
	// through, in place of its rows; nil when applying one event out of its turn is
	// right. It is how a dead letter is replayed.
	Repair func(ctx context.Context, tx pgx.Tx, a subjects.Aggregate, through uint64) error
}

// Apply writes rows for events.
type Apply func(ctx context.Context, tx pgx.Tx, events []eventstore.Recorded) error

// Builder makes rows from the first event on. Fold gets every event once, in order,
// many thousands at a time, and returns what writes their rows; it is called for the
// next ones while that writes. Again takes the place of a write that failed, with
// some of its events.
type Builder struct {
	Fold  func(ctx context.Context, events []eventstore.Recorded) (write Write, err error)
	Again Apply
}

// Write writes rows that are known already.
type Write func(ctx context.Context, tx pgx.Tx) error

// builder is Build, or Apply for those without.
func (p Projection) builder() Builder {
	if p.Build != nil {
		return p.Build()
	}
	return Builder{Again: p.Apply, Fold: func(_ context.Context, events []eventstore.Recorded) (Write, error) {
		return func(ctx context.Context, tx pgx.Tx) error { return p.Apply(ctx, tx, events) }, nil
	}}
}

// Schema is the name of the PostgreSQL schema that the projection's tables are in.
func (p Projection) Schema() string { return fmt.Sprintf("%s%d", p.schemaPrefix(), p.Version) }

func (p Projection) schemaPrefix() string { return "proj_" + p.Name + "_v" }

func (p Projection) fingerprint() string {
	sum := sha256.Sum256([]byte(ours + p.Tables))
	return hex.EncodeToString(sum[:])
}

var validName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

func (p Projection) validate() error {
	switch {
	case !validName.MatchString(p.Name):
		return fmt.Errorf("projection %q: the name must be lower-case letters, digits and underscores, at most 40", p.Name)
	case p.Version < 1:
		return fmt.Errorf("projection %s: the version must be 1 or more", p.Name)
	case len(p.Filters) == 0 || p.Apply == nil:
		return fmt.Errorf("projection %s: filters and Apply must be set", p.Name)
	}
	return nil
}
