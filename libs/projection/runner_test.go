package projection_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/projection/pgtest"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const deadline = time.Minute

var cluster *pgtest.Cluster

func TestMain(m *testing.M) {
	var err error
	if cluster, err = pgtest.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := cluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// purses holds what every aggregate's numbers add up to, and a line for each event.
// The number that it cannot stand is 13.
func purses() projection.Projection {
	return projection.Projection{
		Name: "purses", Version: 1, Filters: []string{subjects.KindFilter("purse")},
		Tables: `CREATE TABLE purses (id text PRIMARY KEY, held bigint NOT NULL, at timestamptz NOT NULL);
			CREATE TABLE lines (sequence bigint PRIMARY KEY, id text NOT NULL, change bigint NOT NULL);`,
		Apply: apply,
	}
}

func apply(ctx context.Context, tx pgx.Tx, events []eventstore.Recorded) error {
	for _, e := range events {
		change := e.Payload.(*wrapperspb.Int64Value).Value
		if change == 13 {
			return errors.New("13 is not a number that can be stood")
		}
		if _, err := tx.Exec(ctx, `INSERT INTO purses (id, held, at) VALUES ($1, $2, $3)
			ON CONFLICT (id) DO UPDATE SET held = purses.held + excluded.held, at = excluded.at`, e.Aggregate.ID, change, e.Time); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO lines (sequence, id, change) VALUES ($1, $2, $3)`, int64(e.Sequence), e.Aggregate.ID, change); err != nil {
			return err
		}
	}
	return nil
}

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// put appends numbers, round robin to three purses, and returns the last sequence.
func put(t *testing.T, store eventstore.Store, numbers ...int64) uint64 {
	t.Helper()
	var sequence uint64
	for i, n := range numbers {
		a := subjects.Of("acme", "purse", fmt.Sprintf("p%d", i%3))
		last, err := store.LastSequence(t.Context(), subjects.AllEvents)
		if err != nil {
			t.Fatal(err)
		}
		sequence, err = store.Record(t.Context(), eventstore.Event{
			Aggregate: a, ID: fmt.Sprint(last), Payload: wrapperspb.Int64(n), Time: begin.Add(time.Duration(last) * time.Second),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sequence
}

func upTo(n int64) []int64 {
	var all []int64
	for i := range n {
		all = append(all, i+100)
	}
	return all
}

// run runs a projection until the test ends or stop is called.
func run(t *testing.T, pool *pgxpool.Pool, store eventstore.Store, p projection.Projection) (r *projection.Runner, stop func()) {
	t.Helper()
	r, err := projection.New(pool, store, p, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run returned %v when its context ended, wanted nil", err)
			}
			done <- nil
		case <-time.After(deadline):
			t.Error("run did not return when its context ended")
		}
	}
	t.Cleanup(stop)
	return r, stop
}

func waitFor(t *testing.T, r *projection.Runner, sequence uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := r.WaitFor(ctx, sequence); err != nil {
		t.Fatalf("%v; ready says: %v", err, r.Ready())
	}
}

func waitReady(t *testing.T, r *projection.Runner) {
	t.Helper()
	for late := time.Now().Add(deadline); r.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("not ready: %v", r.Ready())
		}
	}
}

// dump is every row of every table of a schema, as text, but for when what was given up.
func dump(t *testing.T, pool *pgxpool.Pool, schema string) string {
	t.Helper()
	rows, err := pool.Query(t.Context(), "SELECT tablename::text FROM pg_tables WHERE schemaname = $1 ORDER BY 1", schema)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, table := range tables {
		rows, err := pool.Query(t.Context(), fmt.Sprintf("SELECT (to_jsonb(x) - 'failed_at')::text FROM %s.%s x ORDER BY 1", schema, table))
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s\n%s\n", table, strings.Join(lines, "\n"))
	}
	return all.String()
}

func count(t *testing.T, pool *pgxpool.Pool, query string) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRowsFollowTheLog(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	last := put(t, store, upTo(700)...)
	r, _ := run(t, pool, store, purses())
	waitFor(t, r, last)
	if n := count(t, pool, "SELECT count(*) FROM proj_purses_v1.lines"); n != 700 {
		t.Errorf("%d lines, wanted 700", n)
	}
	for i := range int64(20) {
		last = put(t, store, i+20)
		waitFor(t, r, last)
		if n := count(t, pool, "SELECT count(*) FROM proj_purses_v1.lines"); n != 701+int(i) {
			t.Errorf("%d lines right after waiting for number %d", n, 701+i)
		}
	}
	waitReady(t, r)
	if r.Checkpoint() != last || r.Schema() != "proj_purses_v1" {
		t.Errorf("checkpoint %d of %d, schema %s", r.Checkpoint(), last, r.Schema())
	}
}

func TestEventsThatItDoesNotAskForDoNotMoveIt(t *testing.T) {
	t.Parallel()
	store := memory.New()
	last := put(t, store, 1)
	r, _ := run(t, cluster.Database(t), store, purses())
	waitFor(t, r, last)
	other, err := store.Record(t.Context(), eventstore.Event{Aggregate: subjects.Of("acme", "other", "o"), ID: "o", Payload: wrapperspb.Int64(1), Time: begin})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.WaitFor(ctx, other); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for it: %v", err)
	}
}

func TestARunnerGoesOnWhereTheOneBeforeStopped(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	first, stop := run(t, pool, store, purses())
	waitFor(t, first, put(t, store, 1, 2, 3))
	stop()
	last := put(t, store, 4, 5, 6)
	var seen atomic.Int64
	p := purses()
	p.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Recorded) error {
		seen.Add(int64(len(events)))
		return apply(ctx, tx, events)
	}
	second, _ := run(t, pool, store, p)
	waitFor(t, second, last)
	if seen.Load() != 3 {
		t.Errorf("the second runner applied %d events, wanted 3", seen.Load())
	}
}

func TestRebuildingGivesTheSameRows(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	grown, stop := run(t, pool, store, purses())
	// Grown bit by bit, with an event that cannot be applied among them.
	for i := range int64(60) {
		last := put(t, store, i, i+1)
		if i%7 == 0 {
			waitFor(t, grown, last)
		}
	}
	last := put(t, store, 1)
	waitFor(t, grown, last)
	stop()
	before := dump(t, pool, "proj_purses_v1")
	if !strings.Contains(before, "13 is not a number") {
		t.Errorf("there is no dead letter in:\n%s", before)
	}

	again := cluster.Database(t)
	rebuilt, _ := run(t, again, store, purses())
	waitFor(t, rebuilt, last)
	if diff := cmp.Diff(before, dump(t, again, "proj_purses_v1")); diff != "" {
		t.Errorf("rebuilt in another database, - grown + rebuilt:\n%s", diff)
	}
	if _, err := pool.Exec(t.Context(), "DROP SCHEMA proj_purses_v1 CASCADE"); err != nil {
		t.Fatal(err)
	}
	inPlace, _ := run(t, pool, store, purses())
	waitFor(t, inPlace, last)
	if diff := cmp.Diff(before, dump(t, pool, "proj_purses_v1")); diff != "" {
		t.Errorf("rebuilt in place, - grown + rebuilt:\n%s", diff)
	}
}

func TestSeveralRunnersApplyEachEventOnce(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	var runners []*projection.Runner
	for range 3 {
		r, _ := run(t, pool, store, purses())
		runners = append(runners, r)
	}
	last := put(t, store, upTo(300)...)
	for _, r := range runners {
		waitFor(t, r, last)
	}
	if n, sum := count(t, pool, "SELECT count(*) FROM proj_purses_v1.lines"), count(t, pool, "SELECT sum(held) FROM proj_purses_v1.purses"); n != 300 || sum != 300*100+299*150 {
		t.Errorf("%d lines, the purses hold %d", n, sum)
	}
}

func TestAnEventThatFailsIsADeadLetterAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	put(t, store, 1, 2, 13, 3, 13, 4)
	last := put(t, store, 5)
	r, _ := run(t, pool, store, purses())
	waitFor(t, r, last)
	if n := count(t, pool, "SELECT count(*) FROM proj_purses_v1.lines"); n != 5 {
		t.Errorf("%d lines, wanted 5", n)
	}
	if n := count(t, pool, `SELECT count(*) FROM proj_purses_v1.dead_letters
		WHERE sequence IN (3, 5) AND message = 'google.protobuf.Int64Value' AND subject LIKE 'evt.acme.purse.p%.Int64Value' AND error LIKE '%13 is not%'`); n != 2 {
		t.Errorf("%d dead letters, wanted 2", n)
	}
	waitReady(t, r)
	waitFor(t, r, put(t, store, 6))
}

func TestWhatThePostgresRefusesIsADeadLetterToo(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	p := purses()
	p.Tables += "ALTER TABLE lines ADD CHECK (change < 1000);"
	r, _ := run(t, pool, store, p)
	waitFor(t, r, put(t, store, 1, 1000, 2))
	if n := count(t, pool, "SELECT count(*) FROM proj_purses_v1.dead_letters WHERE error LIKE '%violates check constraint%'"); n != 1 {
		t.Errorf("%d dead letters, wanted 1", n)
	}
}
