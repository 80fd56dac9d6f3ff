package projection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/slipway-paas/slipway/libs/eventstore"
)

const (
	retryFirst = 20 * time.Millisecond
	retryMost  = 2 * time.Second
	// lagWithin bounds what a scrape waits for the log.
	lagWithin = time.Second
)

// Runner keeps one projection up to date. Several may run the same one, in one or
// more processes: the checkpoint lets each event be applied once.
type Runner struct {
	pool   *pgxpool.Pool
	store  eventstore.Store
	p      Projection
	schema string
	// building says that it makes rows that nobody reads yet.
	building bool
	log      *slog.Logger
	applied  metric.Int64Counter
	dead     metric.Int64Counter
	name     metric.MeasurementOption
	// rubbish is poked when there are rows that nobody reads any more.
	rubbish chan struct{}
	running atomic.Bool
	// rebuilt says that a rebuild by this runner has put its rows in place.
	rebuilt atomic.Bool

	mu       sync.Mutex
	position uint64
	moved    chan struct{} // closed and replaced when position changes
	caughtUp bool
	trouble  error // what Ready says; nil when all is well
	rebuild  *Progress
}

// Option changes how a runner behaves.
type Option func(*options)

type options struct{ meter metric.Meter }

// WithMeter counts applied events, dead letters, and those that wait for somebody, and
// says how far the rows are behind the log.
func WithMeter(m metric.Meter) Option { return func(o *options) { o.meter = m } }

// New checks p and prepares to run it from store into pool.
func New(pool *pgxpool.Pool, store eventstore.Store, p Projection, log *slog.Logger, opts ...Option) (*Runner, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	o := options{meter: noop.Meter{}}
	for _, opt := range opts {
		opt(&o)
	}
	r := &Runner{
		pool: pool, store: store, p: p, schema: p.Schema(), log: log.With("projection", p.Name, "version", p.Version),
		moved: make(chan struct{}), rubbish: make(chan struct{}, 1), trouble: fmt.Errorf("projection %s has not begun", p.Name),
		name: metric.WithAttributes(attribute.String("projection", p.Name)),
	}
	var err, deadErr error
	r.applied, err = o.meter.Int64Counter("slipway.projection.events", metric.WithDescription("Events applied."))
	r.dead, deadErr = o.meter.Int64Counter("slipway.projection.dead_letters", metric.WithDescription("Events given up."))
	_, lagErr := o.meter.Int64ObservableGauge("slipway.projection.lag", metric.WithInt64Callback(r.observeLag),
		metric.WithDescription("Sequences between the last event that the rows include and the last one that there is; 0 when nothing is missing."))
	if err = errors.Join(err, deadErr, lagErr, r.countWaiting(o.meter)); err != nil {
		return nil, fmt.Errorf("projection %s: %w", p.Name, err)
	}
	r.applied.Add(context.Background(), 0, r.name)
	r.dead.Add(context.Background(), 0, r.name)
	return r, nil
}

// observeLag asks the log how far it is; a log that does not answer has no lag to show.
func (r *Runner) observeLag(ctx context.Context, o metric.Int64Observer) error {
	ctx, cancel := context.WithTimeout(ctx, lagWithin)
	defer cancel()
	var last uint64
	for _, filter := range r.p.Filters {
		sequence, err := r.store.LastSequence(ctx, filter)
		if err != nil {
			return nil //nolint:nilerr // a scrape without this figure is better than none
		}
		last = max(last, sequence)
	}
	position := r.Checkpoint()
	o.Observe(int64(max(last, position)-position), r.name)
	return nil
}

// Schema is the name of the PostgreSQL schema to read the tables from.
func (r *Runner) Schema() string { return r.schema }

// Name is the projection's.
func (r *Runner) Name() string { return r.p.Name }

// Run makes the tables when they are missing and applies events until ctx ends; then
// it returns nil. It waits for a database or log that is away. It returns an error
// only when the tables cannot be made or are another shape under the same version.
func (r *Runner) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var sweeping sync.WaitGroup
	defer sweeping.Wait()
	defer stop()
	sweeping.Go(func() { r.sweep(ctx) })
	r.running.Store(true)
	defer r.running.Store(false)
	wait := retries()
	for {
		err := r.follow(ctx, wait.Reset)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errFenced):
			r.log.WarnContext(ctx, "the checkpoint went back: beginning again from there")
		case !isAway(err) && !errors.Is(err, eventstore.ErrUnavailable):
			return fmt.Errorf("projection %s: %w", r.p.Name, err)
		}
		r.setTrouble(ctx, err)
		if !sleep(ctx, wait.NextBackOff()) {
			return nil
		}
	}
}

// follow returns nil only when ctx has ended.
func (r *Runner) follow(ctx context.Context, begun func()) error {
	position, err := r.setUp(ctx)
	if err != nil {
		return err
	}
	begun()
	r.sweepSoon()
	r.setPosition(position)
	r.setTrouble(ctx, nil)
	return r.store.Follow(ctx, position, r.handle, r.setCaughtUp, r.p.Filters...)
}

func retries() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = retryFirst, retryMost
	return b
}

// sleep reports whether it was not ctx that ended it.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Checkpoint is the sequence of the last event that the rows include.
func (r *Runner) Checkpoint() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.position
}

// WaitFor waits until the rows include the event with that sequence, which must be
// one that matches the projection's filters: others do not move it. It returns
// ctx's error.
func (r *Runner) WaitFor(ctx context.Context, sequence uint64) error {
	for {
		r.mu.Lock()
		position, moved := r.position, r.moved
		r.mu.Unlock()
		if position >= sequence {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("projection %s is at %d, not yet at %d: %w", r.p.Name, position, sequence, ctx.Err())
		}
	}
}

// Ready is nil when the rows have caught up once with the log and nothing is wrong
// now; otherwise it says what is.
func (r *Runner) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.trouble != nil:
		return r.trouble
	case !r.caughtUp:
		return fmt.Errorf("projection %s is catching up, at %d", r.p.Name, r.position)
	}
	return nil
}

func (r *Runner) setPosition(position uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if position != r.position {
		r.position = position
		close(r.moved)
		r.moved = make(chan struct{})
	}
}

func (r *Runner) setCaughtUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.caughtUp = true
}

// setTrouble logs only changes, so that a long absence is not said a thousand times.
func (r *Runner) setTrouble(ctx context.Context, err error) {
	if err != nil {
		err = fmt.Errorf("projection %s: %w", r.p.Name, err)
	}
	r.mu.Lock()
	before := r.trouble
	r.trouble = err
	r.mu.Unlock()
	switch {
	case err != nil && before == nil:
		r.log.WarnContext(ctx, "the projection waits", "error", err)
	case err == nil && before != nil:
		r.log.InfoContext(ctx, "the projection runs", "position", r.Checkpoint())
	}
}
