package nodeagent

import (
	"context"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/slipway-paas/slipway/libs/eventstore"
)

const (
	// factLanes is how many facts are recorded at once, each lane's one after the other;
	// one lane where looks take turns.
	factLanes = 8
	// factsWaiting bounds each lane's facts that could not be recorded yet; when it is
	// reached the agent waits rather than act unrecorded.
	factsWaiting = 128
	flushTime    = 3 * time.Second
)

// factQueue records the facts of one deployment one after the other, in the order
// they were seen, each until it is taken.
type factQueue struct {
	store   Facts
	log     *slog.Logger
	metrics *metrics
	lanes   []chan eventstore.Event
}

func newFactQueue(store Facts, lanes int, log *slog.Logger, m *metrics) *factQueue {
	q := &factQueue{store: store, log: log, metrics: m, lanes: make([]chan eventstore.Event, lanes)}
	for n := range q.lanes {
		q.lanes[n] = make(chan eventstore.Event, factsWaiting)
	}
	return q
}

func (q *factQueue) lane(e eventstore.Event) chan eventstore.Event {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(e.Aggregate.ID)) // a hash takes everything
	return q.lanes[int(sum.Sum32())%len(q.lanes)]
}

// record queues a fact; it fails only when ctx ends first. A fact that no log can take
// (of a container whose labels somebody changed) is left out: it would hold up all
// others for ever.
func (q *factQueue) record(ctx context.Context, e eventstore.Event) error {
	if err := e.Aggregate.Validate(); err != nil {
		q.log.ErrorContext(ctx, "a fact belongs to no deployment and is left out", "fact", e.ID, "error", err)
		return nil
	}
	select {
	case q.lane(e) <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *factQueue) run(ctx context.Context) {
	q.eachLane(func(lane <-chan eventstore.Event) {
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-lane:
				// A fact in hand is recorded even as ctx ends, within the flush's time.
				q.untilRecorded(ctx, e)
			}
		}
	})
}

func (q *factQueue) eachLane(work func(<-chan eventstore.Event)) {
	var lanes sync.WaitGroup
	for _, lane := range q.lanes {
		lanes.Go(func() { work(lane) })
	}
	lanes.Wait()
}

func (q *factQueue) untilRecorded(ctx context.Context, e eventstore.Event) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 5*time.Second
	for {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		_, err := q.store.Record(attempt, e)
		cancel()
		if err == nil {
			q.metrics.facts.WithLabelValues(e.Type()).Inc()
			return
		}
		if ctx.Err() != nil {
			q.log.Warn("a fact is left unrecorded; it will be seen again at the next start", "fact", e.ID, "error", err)
			return
		}
		q.log.Warn("a fact could not be recorded; trying again", "fact", e.ID, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// flush records what is still queued when the agent ends, within a short time.
func (q *factQueue) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	q.eachLane(func(lane <-chan eventstore.Event) {
		for ctx.Err() == nil {
			select {
			case e := <-lane:
				q.untilRecorded(ctx, e)
			default:
				return
			}
		}
	})
}
