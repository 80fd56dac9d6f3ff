package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// store is the log as one part reaches it.
type store struct {
	p   *proc
	log *memory.Store
}

var _ eventstore.Store = store{}

func (s store) Append(ctx context.Context, e eventstore.Expected) (uint64, error) {
	return s.AppendBatch(ctx, []eventstore.Expected{e})
}

func (s store) AppendBatch(ctx context.Context, events []eventstore.Expected) (sequence uint64, err error) {
	last := events[len(events)-1]
	what := s.p.w.short(last.Aggregate.ID) + " " + last.Type()
	err = s.p.do(ctx, kindAppend, what, func(verdict) error {
		events := plantBatch(s, events)
		sequence, err = s.append(events)
		return err
	})
	return sequence, err
}

// Writable implements eventstore.Store: this log has no disk.
func (store) Writable() error { return nil }

func (s store) append(events []eventstore.Expected) (uint64, error) {
	if planted == plantAckBeforeWrite {
		return s.ackBeforeWrite(events)
	}
	sequence, err := s.log.AppendBatch(context.Background(), events)
	if err == nil {
		s.p.w.written()
	}
	return sequence, err
}

func (s store) Record(ctx context.Context, e eventstore.Event) (sequence uint64, err error) {
	err = s.p.do(ctx, kindRecord, s.p.w.short(e.Aggregate.ID)+" "+e.Type()+" "+s.p.w.shortInstance(e.Payload), func(v verdict) error {
		if planted == plantDropFact && s.p.w.dice("drop", int(s.p.w.noted)).Float64() < .2 {
			sequence, err = s.log.LastSequence(context.Background(), subjects.AllEvents)
			return err
		}
		sequence, err = s.log.Record(context.Background(), e)
		if err != nil {
			return err
		}
		s.p.w.written()
		if v.again > 0 {
			s.p.w.once[e.ID]++
			late := e
			// As when the log has forgotten that it knows the id.
			late.ID = fmt.Sprintf("%s again %d", e.ID, s.p.w.once[e.ID])
			s.p.w.after(v.again, "a fact comes again: "+what(e), func() {
				_, _ = s.log.Record(context.Background(), late)
				s.p.w.written()
			})
		}
		return nil
	})
	return sequence, err
}

func what(e eventstore.Event) string { return e.Type() }

func (s store) Load(ctx context.Context, a subjects.Aggregate, after uint64) (events []eventstore.Recorded, err error) {
	err = s.p.do(ctx, kindLoad, s.p.w.short(a.ID), func(verdict) error {
		events, err = s.log.Load(context.Background(), a, after)
		return err
	})
	return events, err
}

func (s store) LastSequence(ctx context.Context, filter string) (sequence uint64, err error) {
	err = s.p.do(ctx, kindLoad, "the end", func(verdict) error {
		sequence, err = s.log.LastSequence(context.Background(), filter)
		return err
	})
	return sequence, err
}

func (s store) Follow(ctx context.Context, after uint64, handle func(context.Context, []eventstore.Recorded) error, caughtUp func(), filters ...string) error {
	return s.log.Follow(ctx, after, func(ctx context.Context, events []eventstore.Recorded) error {
		for len(events) > 0 {
			var some []eventstore.Recorded
			if err := s.p.do(ctx, kindFollow, "", func(v verdict) error {
				n := 1
				if v.together || s.p.w.quiet || s.p.catchingUp {
					n = len(events)
				}
				some, events = plantFollow(s.p, events[:n]), events[n:]
				return nil
			}); err != nil {
				return err
			}
			if len(some) == 0 {
				continue
			}
			if err := handle(ctx, some); err != nil {
				return err
			}
		}
		return nil
	}, func() {
		s.p.catchingUp = false
		if caughtUp != nil {
			caughtUp()
		}
	}, filters...)
}

// written tells the world what is new in the log: the checks that hold at each
// event, and the short names of what it begins.
func (w *world) written() {
	events, err := w.wholeLog(w.noted)
	if err != nil {
		w.violate("the log cannot be read: %v", err)
		return
	}
	for _, e := range events {
		w.noted = e.Sequence
		w.baptise(e)
		w.note("%4d %s %s %s", e.Sequence, w.short(e.Aggregate.ID), e.Type(), w.shortInstance(e.Payload))
		w.observe(e)
	}
}

// wholeLog is every event behind after, in order.
func (w *world) wholeLog(after uint64) ([]eventstore.Recorded, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var all []eventstore.Recorded
	err := w.log.Follow(ctx, after, func(_ context.Context, batch []eventstore.Recorded) error {
		all = append(all, batch...)
		return nil
	}, cancel, subjects.AllEvents)
	return all, err
}

func (w *world) at() time.Duration { return time.Since(w.began) }
