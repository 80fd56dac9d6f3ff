package projection_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/projection/pgtest"
)

func TestWhoeverIsAskingWhenTheDatabaseDiesIsToldThatItIsAway(t *testing.T) {
	t.Parallel()
	// Of its own: what dies here takes every connection with it.
	doomed, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := doomed.Stop(); err != nil {
			t.Error(err)
		}
	})
	pool := doomed.Database(t)
	var asking sync.WaitGroup
	ask := func(what, query string) {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		asking.Go(func() {
			defer conn.Release()
			rows, err := conn.Query(t.Context(), query)
			if err == nil {
				_, err = pgx.CollectRows(rows, pgx.RowTo[string])
			}
			if err == nil || !projection.IsAway(err) {
				t.Errorf("%s: %T %v", what, err, err)
			}
			// The connection is known to be gone now.
			if err := conn.QueryRow(t.Context(), "SELECT 1").Scan(new(int)); !projection.IsAway(err) {
				t.Errorf("%s, again: %T %v", what, err, err)
			}
		})
	}
	for range 3 {
		ask("between rows", "SELECT repeat('x', 10000) || pg_sleep(0.01)::text FROM generate_series(1, 2000)")
		ask("before the first row", "SELECT pg_sleep(20)::text")
	}
	one, asked := 0, 0
	for asked < 6 {
		const active = "SELECT coalesce(max(pid), 0), count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
		if err := pool.QueryRow(t.Context(), active).Scan(&one, &asked); err != nil {
			t.Fatal(err)
		}
	}
	// Killed as the kernel does it when memory is short; the server ends the others.
	if err := syscall.Kill(one, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	asking.Wait()
	for {
		err := pool.Ping(t.Context())
		if err == nil {
			break
		}
		if !projection.IsAway(err) {
			t.Fatalf("while it comes back: %T %v", err, err)
		}
	}
	slowly, cancel := context.WithCancel(t.Context())
	cancel()
	for what, err := range map[string]error{
		"it refuses":      pool.QueryRow(t.Context(), "SELECT nothing").Scan(new(int)),
		"nothing found":   pool.QueryRow(t.Context(), "SELECT 1 WHERE false").Scan(new(int)),
		"nobody waits":    pool.QueryRow(slowly, "SELECT 1").Scan(new(int)),
		"another's error": fmt.Errorf("reading: %w", errors.New("no")),
	} {
		if err == nil || projection.IsAway(err) {
			t.Errorf("%s: %v counts as away", what, err)
		}
	}
}
