package projection

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	// maxDifferences is how many differing rows are told.
	maxDifferences = 20
	// maxShown bounds how much of a value is told, in bytes.
	maxShown = 200
)

// querier is a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// tablesOf are a projection's own tables in a schema.
func tablesOf(ctx context.Context, q querier, schema string) ([]string, error) {
	rows, err := q.Query(ctx, `SELECT tablename::text FROM pg_tables
		WHERE schemaname = $1 AND tablename NOT IN ('checkpoint', 'dead_letters') ORDER BY 1`, schema)
	if err != nil {
		return nil, fmt.Errorf("list the tables of %s: %w", schema, err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list the tables of %s: %w", schema, err)
	}
	return tables, nil
}

// comparison compares the tables of two schemas in one transaction.
type comparison struct {
	tx         pgx.Tx
	live, next string
}

// run returns how many rows the new schema has, and what differs. Rows are compared
// as they are stored (*<>), not by what their types call equal.
func (c comparison) run(ctx context.Context) (rows uint64, differences []string, err error) {
	tables, err := tablesOf(ctx, c.tx, c.next)
	if err != nil {
		return 0, nil, err
	}
	old, err := tablesOf(ctx, c.tx, c.live)
	if err != nil {
		return 0, nil, err
	}
	if !slices.Equal(tables, old) {
		return 0, []string{fmt.Sprintf("the live tables are %v, the new ones %v", old, tables)}, nil
	}
	// Hashing whole rows of large tables would go to disk; their keys are in order.
	if _, err := c.tx.Exec(ctx, "SET LOCAL enable_hashjoin TO off"); err != nil {
		return 0, nil, fmt.Errorf("prepare to compare: %w", err)
	}
	for _, table := range tables {
		n, differ, err := c.table(ctx, table, maxDifferences-len(differences))
		if err != nil {
			return 0, nil, fmt.Errorf("compare %s: %w", table, err)
		}
		rows += n
		differences = append(differences, differ...)
	}
	letters, err := c.letters(ctx, maxDifferences-len(differences))
	return rows, append(differences, letters...), err
}

// key is a table's primary key; none when it has none.
func (c comparison) key(ctx context.Context, table string) ([]string, error) {
	rows, err := c.tx.Query(ctx, `SELECT a.attname::text FROM pg_index i
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
		WHERE i.indisprimary AND i.indrelid = $1::text::regclass ORDER BY array_position(i.indkey::smallint[], a.attnum)`, pgx.Identifier{c.next, table}.Sanitize())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// table compares one table; it reads no more than most differing rows.
func (c comparison) table(ctx context.Context, table string, most int) (rows uint64, differences []string, err error) {
	key, err := c.key(ctx, table)
	if err != nil {
		return 0, nil, err
	}
	a, b := pgx.Identifier{c.live, table}.Sanitize(), pgx.Identifier{c.next, table}.Sanitize()
	from := a + " a FULL JOIN " + b + " b ON "
	var first, counting string
	if len(key) == 0 {
		// Without a key the rows are their own, with how often there are.
		counted := "(SELECT x::text AS line, count(*) AS n FROM %s x GROUP BY 1)"
		from, first = fmt.Sprintf(counted, a)+" a FULL JOIN "+fmt.Sprintf(counted, b)+" b ON a.line = b.line", "line"
		counting = "coalesce(sum(b.n), 0)::bigint"
	} else {
		first = pgx.Identifier{key[0]}.Sanitize()
		var on []string
		for _, column := range key {
			name := pgx.Identifier{column}.Sanitize()
			on = append(on, "a."+name+" = b."+name)
		}
		from += strings.Join(on, " AND ")
		counting = "count(b." + first + ")"
	}
	differs := fmt.Sprintf("(a.%[1]s IS NULL OR b.%[1]s IS NULL OR a *<> b)", first)
	var made, other int64
	if err := c.tx.QueryRow(ctx, "SELECT "+counting+", count(*) FILTER (WHERE "+differs+") FROM "+from).Scan(&made, &other); err != nil {
		return 0, nil, err
	}
	if other == 0 || most <= 0 {
		return uint64(made), nil, nil
	}
	found, err := c.tx.Query(ctx, "SELECT CASE WHEN a."+first+" IS NULL THEN NULL ELSE to_jsonb(a)::text END, CASE WHEN b."+first+
		" IS NULL THEN NULL ELSE to_jsonb(b)::text END FROM "+from+" WHERE "+differs+" LIMIT $1", most)
	if err != nil {
		return 0, nil, err
	}
	differences, err = pgx.CollectRows(found, func(row pgx.CollectableRow) (string, error) {
		var old, built *string
		if err := row.Scan(&old, &built); err != nil {
			return "", err
		}
		return describe(table, key, old, built), nil
	})
	slices.Sort(differences)
	if rest := other - int64(len(differences)); rest > 0 && err == nil {
		differences[len(differences)-1] += fmt.Sprintf(" (and %d more rows of %s)", rest, table)
	}
	return uint64(made), differences, err
}

// letters compares which events were given up.
func (c comparison) letters(ctx context.Context, most int) ([]string, error) {
	rows, err := c.tx.Query(ctx, fmt.Sprintf(`SELECT coalesce(a.sequence, b.sequence), a.sequence IS NULL FROM %s a FULL JOIN %s b ON a.sequence = b.sequence
		WHERE a.sequence IS NULL OR b.sequence IS NULL ORDER BY 1 LIMIT $1`,
		pgx.Identifier{c.live, "dead_letters"}.Sanitize(), pgx.Identifier{c.next, "dead_letters"}.Sanitize()), max(most, 0))
	if err != nil {
		return nil, fmt.Errorf("compare dead letters: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var sequence int64
		var made bool
		if err := row.Scan(&sequence, &made); err != nil {
			return "", err
		}
		if made {
			return fmt.Sprintf("event %d became a dead letter in the rebuild and is none in the live rows", sequence), nil
		}
		return fmt.Sprintf("event %d is a dead letter in the live rows and was taken in by the rebuild", sequence), nil
	})
}

// describe says how two rows of one key differ.
func describe(table string, key []string, old, built *string) string {
	var a, b map[string]json.RawMessage
	for text, into := range map[*string]*map[string]json.RawMessage{old: &a, built: &b} {
		if text == nil {
			continue
		}
		// PostgreSQL wrote it; if it cannot be read there is less to say.
		_ = json.Unmarshal([]byte(*text), into)
	}
	some := cmp.Or(old, built)
	name := table + " " + shortened(*some)
	if len(key) > 0 {
		row := a
		if row == nil {
			row = b
		}
		var parts []string
		for _, column := range key {
			parts = append(parts, column+"="+shortened(string(row[column])))
		}
		name = table + " " + strings.Join(parts, " ")
	}
	switch {
	case old == nil:
		return name + ": only in the rebuilt rows"
	case built == nil:
		return name + ": only in the live rows"
	}
	var parts []string
	for column, was := range a {
		if string(was) != string(b[column]) {
			parts = append(parts, fmt.Sprintf("%s is %s live and %s rebuilt", column, shortened(string(was)), shortened(string(b[column]))))
		}
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		parts = []string{"stored in other bytes"}
	}
	return name + ": " + strings.Join(parts, ", ")
}

func shortened(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}
