// Package projection turns the event log into PostgreSQL rows: in order, in
// batches, rows and checkpoint in one transaction, so that the rows are a pure
// function of the log, whatever happens to the process or to the database.
//
// A projection lives in a schema named by its name and version. A new version
// builds its schema beside the old one's, takes over when it has caught up (Ready),
// and then drops what is older (DropOlder).
package projection

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"

	"github.com/slipway-paas/slipway/libs/eventstore"
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
	// depend on nothing but the events and its own rows: no clock, no random numbers.
	Apply func(ctx context.Context, tx pgx.Tx, events []eventstore.Recorded) error
}

// Schema is the name of the PostgreSQL schema that the projection's tables are in.
func (p Projection) Schema() string { return fmt.Sprintf("%s%d", p.schemaPrefix(), p.Version) }

func (p Projection) schemaPrefix() string { return "proj_" + p.Name + "_v" }

// quotedSchema is Schema for SQL; validate has seen that it needs no more than this.
func (p Projection) quotedSchema() string { return `"` + p.Schema() + `"` }

func (p Projection) fingerprint() string {
	sum := sha256.Sum256([]byte(p.Tables))
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
