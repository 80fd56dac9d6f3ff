package jetstream_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/internal/natstest"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Each benchmark has the same work done by bare JetStream beside it.

func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("store/writers=%d", writers), func(b *testing.B) {
			s := open(natstest.Start(b).Events())
			inParallel(b, writers, func(w, i int, last uint64) (uint64, error) {
				a := subjects.Of("acme", subjects.Deployment, fmt.Sprintf("d%d", w))
				return s.Append(b.Context(), eventstore.Expected{LastSequence: last, Event: eventstore.Event{
					Aggregate: a, ID: fmt.Sprintf("e%d", i), Payload: wrapperspb.Int64(int64(i)), Time: time.Unix(int64(i), 0),
				}})
			})
		})
		b.Run(fmt.Sprintf("raw/writers=%d", writers), func(b *testing.B) {
			js := natstest.Start(b).Events()
			inParallel(b, writers, func(w, i int, _ uint64) (uint64, error) {
				ack, err := js.Publish(b.Context(), fmt.Sprintf("evt.acme.deployment.d%d.Raw", w), []byte("12345678"))
				if err != nil {
					return 0, err
				}
				return ack.Sequence, nil
			})
		})
	}
}

func inParallel(b *testing.B, writers int, write func(writer, i int, last uint64) (uint64, error)) {
	var all sync.WaitGroup
	var next atomic.Int64
	b.ResetTimer()
	for w := range writers {
		all.Go(func() {
			last := uint64(0)
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				var err error
				if last, err = write(w, int(i), last); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkFollow(b *testing.B) {
	js := natstest.Start(b).Events()
	s := open(js)
	const stored = 20000
	var all sync.WaitGroup
	for w := range 64 {
		all.Go(func() { record(b, s, w*stored/64+1, (w+1)*stored/64) })
	}
	all.Wait()
	last, err := s.LastSequence(b.Context(), subjects.AllEvents)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("store", func(b *testing.B) {
		for b.Loop() {
			ctx, stop := context.WithCancel(b.Context())
			if err := s.Follow(ctx, 0, func(_ context.Context, events []eventstore.Recorded) error {
				if events[len(events)-1].Sequence == last {
					stop()
				}
				return nil
			}, nil, subjects.AllEvents); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(last)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("raw", func(b *testing.B) {
		legacy, err := js.Conn().JetStream()
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			sub, err := legacy.SubscribeSync(subjects.AllEvents, nats.OrderedConsumer())
			if err != nil {
				b.Fatal(err)
			}
			for range last {
				if _, err := sub.NextMsg(time.Second); err != nil {
					b.Fatal(err)
				}
			}
			_ = sub.Unsubscribe()
		}
		b.ReportMetric(float64(last)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
}

// BenchmarkLatency is how long after its append began, and ended, an event is with a
// follower.
func BenchmarkLatency(b *testing.B) {
	s := open(natstest.Start(b).Events())
	arrived := make(chan time.Time, 1)
	ready := make(chan struct{})
	go func() {
		_ = s.Follow(b.Context(), 0, func(context.Context, []eventstore.Recorded) error {
			arrived <- time.Now()
			return nil
		}, func() { close(ready) }, subjects.AllEvents)
	}()
	<-ready
	var whole, rest []time.Duration
	for i := 1; b.Loop(); i++ {
		begun := time.Now()
		if _, err := s.Record(b.Context(), number(i)); err != nil {
			b.Fatal(err)
		}
		acknowledged := time.Now()
		at := <-arrived
		whole, rest = append(whole, at.Sub(begun)), append(rest, at.Sub(acknowledged))
	}
	slices.Sort(whole)
	slices.Sort(rest)
	n := len(whole)
	b.ReportMetric(float64(whole[n/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(whole[n*95/100].Microseconds()), "p95-µs")
	b.ReportMetric(float64(rest[n/2].Microseconds()), "p50-after-ack-µs")
}

func BenchmarkLoadTen(b *testing.B) {
	s := open(natstest.Start(b).Events())
	record(b, s, 1, 10)
	for b.Loop() {
		if _, err := s.Load(b.Context(), aggregate, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBatchOfTwo(b *testing.B) {
	s := open(natstest.Start(b).Events())
	for i := 0; b.Loop(); i++ {
		one, two := number(i), number(i)
		one.Aggregate.ID, two.Aggregate.ID = fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		if _, err := s.AppendBatch(b.Context(), []eventstore.Expected{{Event: one}, {Event: two}}); err != nil {
			b.Fatal(err)
		}
	}
}
