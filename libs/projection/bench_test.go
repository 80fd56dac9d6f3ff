package projection_test

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/internal/natstest"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func fact(n int) eventstore.Event {
	return eventstore.Event{
		Aggregate: subjects.Of("acme", "purse", fmt.Sprintf("p%d", n%100)), ID: fmt.Sprint(n), Payload: wrapperspb.Int64(1), Time: begin,
	}
}

// BenchmarkRebuild is how fast 10000 stored events become 20000 written rows.
func BenchmarkRebuild(b *testing.B) {
	const events = 10000
	store := jetstream.New(natstest.Start(b).Events(), slog.New(slog.DiscardHandler))
	var last uint64
	var mu sync.Mutex
	var all sync.WaitGroup
	for w := range 50 {
		all.Go(func() {
			for i := range events / 50 {
				sequence, err := store.Record(b.Context(), fact(w*events/50+i))
				if err != nil {
					b.Error(err)
				}
				mu.Lock()
				last = max(last, sequence)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for b.Loop() {
		r, err := projection.New(cluster.Database(b), store, purses(), slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		go func() { _ = r.Run(b.Context()) }()
		if err := r.WaitFor(b.Context(), last); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(events*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkReadYourWrite is how long a writer waits for its event's rows.
func BenchmarkReadYourWrite(b *testing.B) {
	store := jetstream.New(natstest.Start(b).Events(), slog.New(slog.DiscardHandler))
	r, err := projection.New(cluster.Database(b), store, purses(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = r.Run(b.Context()) }()
	var waits []time.Duration
	for n := 0; b.Loop(); n++ {
		sequence, err := store.Record(b.Context(), fact(n))
		if err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		if err := r.WaitFor(b.Context(), sequence); err != nil {
			b.Fatal(err)
		}
		waits = append(waits, time.Since(begun))
	}
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)/2].Microseconds()), "p50-wait-µs")
	b.ReportMetric(float64(waits[len(waits)*95/100].Microseconds()), "p95-wait-µs")
}
