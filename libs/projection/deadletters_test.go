package projection_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// mendable is purses that can be made to stand 13.
func mendable(mended *atomic.Bool) projection.Projection {
	p := purses()
	p.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Recorded) error {
		if !mended.Load() {
			return apply(ctx, tx, events)
		}
		for _, e := range events {
			if _, err := tx.Exec(ctx, `INSERT INTO lines (sequence, id, change) VALUES ($1, $2, $3)`, int64(e.Sequence), e.Aggregate.ID, e.Payload.(*wrapperspb.Int64Value).Value); err != nil {
				return err
			}
		}
		return nil
	}
	return p
}

func TestADeadLetterIsShownReplayedOrDropped(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	var mended atomic.Bool
	r, _ := run(t, pool, store, mendable(&mended))
	last := put(t, store, 1, 13, 2, 13, 3)
	waitFor(t, r, last)
	letters, err := r.DeadLetters(t.Context())
	if err != nil || len(letters) != 2 || letters[0].Sequence != 2 || letters[1].Sequence != 4 {
		t.Fatalf("listed %v, %v", letters, err)
	}
	one, err := r.DeadLetter(t.Context(), 2)
	if err != nil || one.Subject != "evt.acme.purse.p1.Int64Value" || !strings.Contains(one.Error, "13 is not a number") || one.FailedAt.IsZero() {
		t.Errorf("shown %+v, %v", one, err)
	}
	if m, err := one.Payload(); err != nil || m.(*wrapperspb.Int64Value).Value != 13 {
		t.Errorf("its payload is %v, %v", m, err)
	}

	var again *projection.ReplayError
	if err := r.Replay(t.Context(), 2); !errors.As(err, &again) {
		t.Errorf("replaying what still cannot be stood: %v", err)
	}
	if one, err = r.DeadLetter(t.Context(), 2); err != nil || !strings.Contains(one.Error, "13 is not") {
		t.Errorf("after it failed again: %v, %v", one, err)
	}
	mended.Store(true)
	if err := r.Replay(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if n := count(t, pool, "SELECT count(*) FROM proj_purses_v1.lines WHERE sequence = 2"); n != 1 {
		t.Error("its row is not there")
	}
	if err := r.Drop(t.Context(), 4); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"replayed twice": r.Replay(t.Context(), 2), "dropped twice": r.Drop(t.Context(), 4), "dropped, then replayed": r.Replay(t.Context(), 4), "never one": r.Drop(t.Context(), 1),
	} {
		if !errors.Is(err, projection.ErrNoDeadLetter) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if letters, err := r.DeadLetters(t.Context()); err != nil || len(letters) != 0 {
		t.Errorf("still there: %v, %v", letters, err)
	}
	if r.Checkpoint() != last {
		t.Errorf("the checkpoint is %d, not %d", r.Checkpoint(), last)
	}
}

func TestWithRepairAReplaySettlesTheWholeAggregate(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	p := purses()
	p.Repair = func(ctx context.Context, tx pgx.Tx, a subjects.Aggregate, through uint64) error {
		events, err := store.Load(ctx, a, 0)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "DELETE FROM lines WHERE id = $1", a.ID); err != nil {
			return err
		}
		for _, e := range events {
			if e.Sequence > through {
				return fmt.Errorf("event %d is beyond %d", e.Sequence, through)
			}
			if _, err := tx.Exec(ctx, `INSERT INTO lines (sequence, id, change) VALUES ($1, $2, $3)`, int64(e.Sequence), a.ID, e.Payload.(*wrapperspb.Int64Value).Value); err != nil {
				return err
			}
		}
		return nil
	}
	r, _ := run(t, pool, store, p)
	// 2 and 5 are p1's, 6 is p2's.
	waitFor(t, r, put(t, store, 1, 13, 2, 3, 13, 13, 4))
	if err := r.Replay(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	if letters, err := r.DeadLetters(t.Context()); err != nil || len(letters) != 1 || letters[0].Sequence != 6 {
		t.Errorf("left: %v, %v", letters, err)
	}
	if n := count(t, pool, "SELECT count(*) FROM proj_purses_v1.lines WHERE id = 'p1'"); n != 2 {
		t.Errorf("p1 has %d lines, wanted 2", n)
	}
}

func TestDeadLettersAreCounted(t *testing.T) {
	t.Parallel()
	pool, store := cluster.Database(t), memory.New()
	reader := sdkmetric.NewManualReader()
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	r, err := projection.New(pool, store, purses(), slog.New(slog.DiscardHandler), projection.WithMeter(meter))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	waitFor(t, r, put(t, store, 1, 13, 13, 2))
	if given, waiting := figures(t, reader); given != 2 || waiting != 2 {
		t.Errorf("%d given up, %d waiting", given, waiting)
	}
	if err := r.Drop(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if given, waiting := figures(t, reader); given != 2 || waiting != 1 {
		t.Errorf("after a drop: %d given up, %d waiting", given, waiting)
	}
}

func figures(t *testing.T, reader sdkmetric.Reader) (given, waiting int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				if m.Name == "slipway.projection.dead_letters" {
					given = data.DataPoints[0].Value
				}
			case metricdata.Gauge[int64]:
				waiting = data.DataPoints[0].Value
			}
		}
	}
	return given, waiting
}
