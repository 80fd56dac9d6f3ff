package projection_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/projection/pgtest"
)

func TestANewVersionBuildsBesideTheOldOneAndTakesOver(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	last := put(t, store, upTo(50)...)
	old, stopOld := run(t, pool, store, purses())
	waitFor(t, old, last)
	next := purses()
	next.Version = 2
	next.Tables += "ALTER TABLE purses ADD COLUMN note text;"
	r, _ := run(t, pool, store, next)
	waitFor(t, r, last)
	waitReady(t, r)
	// Both go on until the new one is rebuilt, which somebody asks for.
	last = put(t, store, 7)
	waitFor(t, old, last)
	waitFor(t, r, last)
	stopOld()
	rebuild(t, r, false)
	waitAlone(t, pool)
	if n := count(t, pool, "SELECT count(*) FROM proj_purses_v2.lines"); n != 51 {
		t.Errorf("%d lines, wanted 51", n)
	}
}

func TestTablesOfAnotherShapeUnderTheSameVersionAreRefused(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	r, stop := run(t, pool, store, purses())
	waitFor(t, r, put(t, store, 1))
	stop()
	changed := purses()
	changed.Tables += "CREATE TABLE more (id text);"
	broken := purses()
	broken.Name, broken.Tables = "broken", "CREATE TABEL x ();"
	for want, p := range map[string]projection.Projection{"raise the version": changed, "syntax error": broken} {
		r, err := projection.New(pool, store, p, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run returned %v, wanted %q in it", err, want)
		}
	}
	if n := count(t, pool, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'proj_broken%'"); n != 0 {
		t.Error("a schema was left of the broken one")
	}
}

func TestWhatIsNoProjectionIsRefused(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*projection.Projection){
		"a name with a quote": func(p *projection.Projection) { p.Name = `a"b` },
		"no version":          func(p *projection.Projection) { p.Version = 0 },
		"no filters":          func(p *projection.Projection) { p.Filters = nil },
		"no apply":            func(p *projection.Projection) { p.Apply = nil },
	} {
		p := purses()
		spoil(&p)
		if _, err := projection.New(nil, memory.New(), p, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestACheckpointThatIsSetBackIsFollowed(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	r, _ := run(t, pool, store, purses())
	waitFor(t, r, put(t, store, 1, 2, 3))
	for _, statement := range []string{
		"UPDATE proj_purses_v1.checkpoint SET position = 0",
		"TRUNCATE proj_purses_v1.purses, proj_purses_v1.lines",
	} {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, r, put(t, store, 4))
	if n := count(t, pool, "SELECT count(*) FROM proj_purses_v1.lines"); n != 4 {
		t.Errorf("%d lines, wanted 4", n)
	}
}

// This one has a cluster of its own, which it takes down.
func TestADatabaseThatGoesAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	own, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	pool, store := own.Database(t), memory.New()
	r, _ := run(t, pool, store, purses())
	waitFor(t, r, put(t, store, upTo(10)...))
	waitReady(t, r)
	for round := range 3 {
		if err := own.Down(); err != nil {
			t.Fatal(err)
		}
		last := put(t, store, upTo(10)...)
		for late := time.Now().Add(deadline); r.Ready() == nil; time.Sleep(time.Millisecond) {
			if time.Now().After(late) {
				t.Fatal("ready without a database")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := r.WaitFor(ctx, last); err == nil {
			t.Error("the rows are there without a database")
		}
		cancel()
		if err := own.Up(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, r, last)
		waitReady(t, r)
		if n := count(t, pool, "SELECT count(*) FROM proj_purses_v1.lines"); n != 20+10*round {
			t.Errorf("%d lines after absence %d", n, round+1)
		}
	}
	if n := count(t, pool, "SELECT count(*) FROM proj_purses_v1.dead_letters"); n != 0 {
		t.Errorf("%d dead letters of a database that was away", n)
	}
}
