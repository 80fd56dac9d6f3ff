package projection_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/slipway-paas/slipway/libs/subjects"
)

func rebuild(t *testing.T, r *projection.Runner, accept bool) projection.Rebuilt {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	done, err := r.Rebuild(ctx, accept)
	if err != nil {
		t.Fatalf("rebuild: %v", err)
	}
	return done
}

func execute(t *testing.T, pool *pgxpool.Pool, statement string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// schemas are the projection's schemas that there are.
func schemas(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	return count(t, pool, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'proj_purses%'")
}

// waitAlone waits until only the live schema is left: the others are dropped behind a
// rebuild's back.
func waitAlone(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	for until := time.Now().Add(deadline); schemas(t, pool) != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d schemas are left", schemas(t, pool))
		}
	}
}

func TestARebuildTakesTheLiveRowsPlaceWhileEventsFlowAndReadersRead(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	r, _ := run(t, pool, store, purses())
	other, _ := run(t, pool, store, purses()) // as another process would
	waitFor(t, r, put(t, store, upTo(3000)...))

	ctx, stop := context.WithCancel(t.Context())
	flowed, read := make(chan uint64, 1), make(chan error, 1)
	var reads atomic.Int64
	go func() {
		var last uint64
		for i := 0; ctx.Err() == nil; i++ {
			last, _ = store.Record(t.Context(), eventstore.Event{
				Aggregate: subjects.Of("acme", "purse", fmt.Sprintf("p%d", i%9)), ID: fmt.Sprint("flow-", i), Payload: wrapperspb.Int64(1), Time: begin,
			})
			time.Sleep(2 * time.Millisecond)
		}
		flowed <- last
	}()
	go func() {
		for before := 3000; ctx.Err() == nil; reads.Add(1) {
			var n int
			if err := pool.QueryRow(context.Background(), "SELECT count(*) FROM "+r.Schema()+".lines").Scan(&n); err != nil || n < before {
				read <- fmt.Errorf("a reader saw %d lines after %d: %w", n, before, err)
				return
			}
			before = n
			time.Sleep(time.Millisecond)
		}
		read <- nil
	}()
	for range 5 {
		if done := rebuild(t, r, false); !done.Identical() || !done.Swapped || done.Events < 3000 || done.Rows < 3000 {
			t.Errorf("%+v", done)
		}
	}
	stop()
	last := <-flowed
	if err := <-read; err != nil || reads.Load() < 10 {
		t.Errorf("after %d reads: %v", reads.Load(), err)
	}
	waitFor(t, r, last)
	waitFor(t, other, last)
	if n := count(t, pool, "SELECT count(*) FROM proj_purses_v1.lines"); uint64(n) != last {
		t.Errorf("%d lines of %d events", n, last)
	}
	again := cluster.Database(t)
	fresh, _ := run(t, again, store, purses())
	waitFor(t, fresh, last)
	if diff := cmp.Diff(dump(t, again, "proj_purses_v1"), dump(t, pool, "proj_purses_v1")); diff != "" {
		t.Errorf("after five rebuilds, - fresh + swapped:\n%s", diff)
	}
	waitAlone(t, pool)
}

func TestARebuildDoesNotWaitForWhoStillReadsTheOldRows(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	r, _ := run(t, pool, store, purses())
	waitFor(t, r, put(t, store, upTo(100)...))
	reader, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := reader.QueryRow(t.Context(), "SELECT count(*) FROM proj_purses_v1.lines").Scan(&n); err != nil || n != 100 {
		t.Fatalf("the reader saw %d lines, %v", n, err)
	}
	if done := rebuild(t, r, false); !done.Swapped {
		t.Errorf("%+v", done)
	}
	waitFor(t, r, put(t, store, 101))
	if n := schemas(t, pool); n != 2 {
		t.Errorf("%d schemas while the old rows are read, wanted 2", n)
	}
	if err := reader.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitAlone(t, pool)
}

func TestRowsThatAreNotWhatTheLogSaysAreToldAndStay(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	r, _ := run(t, pool, store, purses())
	waitFor(t, r, put(t, store, upTo(50)...))
	right := dump(t, pool, r.Schema())
	for _, statement := range []string{
		"UPDATE proj_purses_v1.purses SET held = held + 1 WHERE id = 'p1'",
		"DELETE FROM proj_purses_v1.lines WHERE sequence = 7",
		"INSERT INTO proj_purses_v1.lines VALUES (1000, 'p9', 5)",
	} {
		execute(t, pool, statement)
	}
	wrong := dump(t, pool, r.Schema())
	done := rebuild(t, r, false)
	if done.Swapped || done.Identical() || dump(t, pool, r.Schema()) != wrong {
		t.Errorf("swapped over differences: %+v", done)
	}
	all := strings.Join(done.Differences, "\n")
	for _, want := range []string{"lines sequence=7: only in the rebuilt rows", "lines sequence=1000: only in the live rows", `purses id="p1": held is 21`} {
		if !strings.Contains(all, want) {
			t.Errorf("the differences lack %q:\n%s", want, all)
		}
	}
	if done := rebuild(t, r, true); !done.Swapped || len(done.Differences) != 3 {
		t.Errorf("accepting differences: %+v", done)
	}
	if diff := cmp.Diff(right, dump(t, pool, r.Schema())); diff != "" {
		t.Errorf("after the swap:\n%s", diff)
	}
	execute(t, pool, "DELETE FROM proj_purses_v1.lines")
	if done := rebuild(t, r, false); len(done.Differences) != 20 || !strings.Contains(done.Differences[19], "30 more") {
		t.Errorf("%d differences are told: %v", len(done.Differences), done.Differences)
	}
}

// What a type calls equal may be stored in other bytes; a table may have no key.
func TestRowsAreComparedByTheirBytes(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	p := purses()
	p.Tables += "CREATE TABLE notes (n numeric, what text);"
	p.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Recorded) error {
		if err := apply(ctx, tx, events); err != nil {
			return err
		}
		for range events {
			if _, err := tx.Exec(ctx, "INSERT INTO notes VALUES (1.0, 'note')"); err != nil {
				return err
			}
		}
		return nil
	}
	r, _ := run(t, pool, store, p)
	waitFor(t, r, put(t, store, 1, 2, 3))
	if done := rebuild(t, r, false); !done.Swapped || done.Rows != 9 {
		t.Fatalf("%+v", done)
	}
	execute(t, pool, "UPDATE proj_purses_v1.notes SET n = 1.00 WHERE ctid = (SELECT min(ctid) FROM proj_purses_v1.notes)")
	if done := rebuild(t, r, false); done.Identical() || done.Swapped {
		t.Errorf("1.00 is not 1.0: %+v", done)
	}
}

func TestDeadLettersStayWhatTheyAreInARebuild(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	r, _ := run(t, pool, store, purses())
	waitFor(t, r, put(t, store, 1, 13, 2, 13, 3))
	if err := r.Drop(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	before, err := r.DeadLetter(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	if done := rebuild(t, r, false); !done.Swapped || done.Events != 5 {
		t.Errorf("%+v", done)
	}
	letters, err := r.DeadLetters(t.Context())
	if err != nil || len(letters) != 1 || letters[0].Sequence != 4 || !letters[0].FailedAt.Equal(before.FailedAt) {
		t.Errorf("after the rebuild: %v, %v", letters, err)
	}
	// One that the rebuild takes in is a difference like any other.
	execute(t, pool, `INSERT INTO proj_purses_v1.dead_letters VALUES (5, 's', 'm', 'e', now(), '', 'x', now())`)
	if done := rebuild(t, r, false); done.Swapped || len(done.Differences) != 1 || !strings.Contains(done.Differences[0], "event 5 is a dead letter in the live rows") {
		t.Errorf("%+v", done)
	}
}

func TestOnlyOneRebuildIsUnderWayAndAnInterruptedOneLeavesNothing(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	began, goOn := make(chan struct{}, 10), make(chan struct{})
	p := purses()
	p.Build = func() projection.Builder {
		return projection.Builder{Again: apply, Fold: func(ctx context.Context, events []eventstore.Recorded) (projection.Write, error) {
			began <- struct{}{}
			select {
			case <-goOn:
			case <-ctx.Done():
			}
			return func(ctx context.Context, tx pgx.Tx) error { return apply(ctx, tx, events) }, nil
		}}
	}
	r, _ := run(t, pool, store, p)
	second, err := projection.New(pool, store, p, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, r, put(t, store, 1, 2, 3))

	interrupted, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { _, err := r.Rebuild(interrupted, false); failed <- err }()
	<-began
	if _, err := second.Rebuild(t.Context(), false); !errors.Is(err, projection.ErrRebuilding) {
		t.Errorf("a second one at the same time: %v", err)
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the interrupted one: %v", err)
	}
	if n := schemas(t, pool); n != 1 {
		t.Errorf("%d schemas are left", n)
	}
	if _, under := r.Rebuilding(); under {
		t.Error("it still says that it rebuilds")
	}
	// As a process that was killed leaves it.
	execute(t, pool, "CREATE SCHEMA proj_purses_v1_next; CREATE TABLE proj_purses_v1_next.lines (x int); CREATE SCHEMA proj_purses_v1_former")
	close(goOn)
	if done := rebuild(t, second, false); !done.Swapped || schemas(t, pool) != 1 {
		t.Errorf("%+v, %d schemas", done, schemas(t, pool))
	}
	waitFor(t, r, put(t, store, 4))
}
