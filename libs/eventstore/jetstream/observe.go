package jetstream

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Option changes how a store behaves.
type Option func(*options)

type options struct {
	tracer trace.Tracer
	meter  metric.Meter
	// writable is nil when it is not known.
	writable func() error
}

// WithTracer makes a span for each write that belongs to a trace: the one of the
// caller, else the one that the event names.
func WithTracer(t trace.Tracer) Option { return func(o *options) { o.tracer = t } }

// WithMeter measures writes by operation and outcome, and counts the events that
// Follow could not read.
func WithMeter(m metric.Meter) Option { return func(o *options) { o.meter = m } }

// WithWritable refuses every write with ErrReadOnly while writable says why there is
// no use in trying; it must answer at once. nil tries always.
func WithWritable(writable func() error) Option { return func(o *options) { o.writable = writable } }

// operation is a way to write.
type operation int

const (
	opAppend operation = iota
	opBatch
	opRecord
)

func (o operation) String() string { return [...]string{"append", "append_batch", "record"}[o] }

// outcome is how a write ended.
type outcome int

const (
	outcomeOK outcome = iota
	outcomeConflict
	outcomeUnavailable
	outcomeRefused
)

func (o outcome) String() string { return [...]string{"ok", "conflict", "unavailable", "refused"}[o] }

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, eventstore.ErrConflict):
		return outcomeConflict
	case errors.Is(err, eventstore.ErrUnavailable):
		return outcomeUnavailable
	default:
		return outcomeRefused
	}
}

// instruments are what a store is watched with.
type instruments struct {
	tracer  trace.Tracer
	writes  metric.Float64Histogram
	skipped metric.Int64Counter
	// labels are made once: a write then costs no allocation.
	labels [opRecord + 1][outcomeRefused + 1][]metric.RecordOption
}

func newInstruments(log *slog.Logger, opts []Option) *instruments {
	o := options{tracer: nooptrace.NewTracerProvider().Tracer(""), meter: noopmetric.Meter{}}
	for _, opt := range opts {
		opt(&o)
	}
	i := &instruments{tracer: o.tracer}
	var err, skippedErr error
	i.writes, err = o.meter.Float64Histogram("slipway.eventstore.write", metric.WithUnit("s"),
		metric.WithDescription("Time until the log acknowledged or refused a write, by operation and outcome."),
		metric.WithExplicitBucketBoundaries(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5))
	i.skipped, skippedErr = o.meter.Int64Counter("slipway.eventstore.skipped",
		metric.WithDescription("Events that a follower could not read."))
	if err = errors.Join(err, skippedErr); err != nil {
		log.Error("the event log's figures are not kept", "error", err)
		return newInstruments(log, []Option{WithTracer(o.tracer)})
	}
	for op := range i.labels {
		for out := range i.labels[op] {
			set := attribute.NewSet(attribute.String("operation", operation(op).String()), attribute.String("outcome", outcome(out).String()))
			i.labels[op][out] = []metric.RecordOption{metric.WithAttributeSet(set)}
		}
	}
	// The series is there from the start, so that its growth can be seen.
	i.skipped.Add(context.Background(), 0)
	return i
}

// write is one write under way.
type write struct {
	*instruments
	op    operation
	span  trace.Span
	begun time.Time
}

// begin starts to watch a write of n events, of which e says what it is about.
func (i *instruments) begin(ctx context.Context, op operation, e *eventstore.Event, n int) (context.Context, write) {
	w := write{instruments: i, op: op, begun: time.Now()}
	ctx, w.span = observe.Continue(ctx, i.tracer, e.TraceParent, "write to the event log", trace.SpanKindProducer)
	if w.span.IsRecording() && e.Payload != nil {
		w.span.SetName(op.String() + " " + e.Type())
		w.span.SetAttributes(
			attribute.String("messaging.system", "nats"),
			attribute.String("messaging.operation.type", "send"),
			attribute.String("messaging.operation.name", op.String()),
			attribute.String("messaging.destination.name", subjects.StreamEvents),
			attribute.String("messaging.message.id", e.ID),
			attribute.Int("messaging.batch.message_count", n),
			attribute.String("slipway.event.subject", e.Aggregate.Event(e.Type())),
			attribute.String("slipway.event.type", e.Type()),
			attribute.String("slipway.event.source", e.Source),
		)
	}
	return ctx, w
}

// end says how it went.
func (w write) end(ctx context.Context, sequence uint64, err error) {
	out := outcomeOf(err)
	w.writes.Record(ctx, time.Since(w.begun).Seconds(), w.labels[w.op][out]...)
	if w.span.IsRecording() {
		w.span.SetAttributes(attribute.String("slipway.event.outcome", out.String()), attribute.Int64("slipway.event.sequence", int64(sequence)))
		// Losing a race is how decisions are made, not a failure.
		if out != outcomeConflict {
			_ = observe.Failed(w.span, err)
		}
	}
	w.span.End()
}
