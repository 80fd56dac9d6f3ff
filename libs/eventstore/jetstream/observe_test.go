package jetstream

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func observedEvent(traceParent string) eventstore.Event {
	return eventstore.Event{
		Aggregate: subjects.Of("acme", subjects.Deployment, "d1"), ID: "e1", Source: "test",
		Payload: wrapperspb.String("it"), TraceParent: traceParent,
	}
}

const recordedTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestAWriteIsASpanOfTheTraceThatTheEventNames(t *testing.T) {
	t.Parallel()
	exporter := tracetest.NewInMemoryExporter()
	watch := newInstruments(slog.New(slog.DiscardHandler), []Option{
		WithTracer(sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)).Tracer("test")),
	})
	event := observedEvent(recordedTrace)

	ctx, w := watch.begin(t.Context(), opRecord, &event, 1)
	w.end(ctx, 7, nil)
	ctx, w = watch.begin(t.Context(), opAppend, &event, 1)
	w.end(ctx, 0, fmt.Errorf("append: %w", eventstore.ErrConflict))
	ctx, w = watch.begin(t.Context(), opBatch, &event, 2)
	w.end(ctx, 0, fmt.Errorf("append: %w", eventstore.ErrUnavailable))

	spans := exporter.GetSpans()
	if len(spans) != 3 {
		t.Fatalf("%d spans, want three", len(spans))
	}
	for i, want := range []struct{ name, outcome, status string }{
		{"record StringValue", "ok", "Unset"},
		{"append StringValue", "conflict", "Unset"},
		{"append_batch StringValue", "unavailable", "Error"},
	} {
		s := spans[i]
		set := attribute.NewSet(s.Attributes...)
		got, _ := set.Value("slipway.event.outcome")
		subject, _ := set.Value("slipway.event.subject")
		if s.Name != want.name || got.AsString() != want.outcome || s.Status.Code.String() != want.status {
			t.Errorf("the span is %s, %s, %s; want %v", s.Name, got.AsString(), s.Status.Code, want)
		}
		if subject.AsString() != event.Aggregate.Event("StringValue") || s.SpanContext.TraceID().String() != recordedTrace[3:35] {
			t.Errorf("the span is of %s in %s", subject.AsString(), s.SpanContext.TraceID())
		}
	}
}

// BenchmarkUnwatched is what a write costs beside the write itself when nobody traces.
func BenchmarkUnwatched(b *testing.B) {
	off := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test")
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())).Meter("test")
	for name, options := range map[string][]Option{
		"nothing": nil, "spans off": {WithTracer(off)}, "spans off, figures on": {WithTracer(off), WithMeter(meter)},
	} {
		b.Run(name, func(b *testing.B) {
			watch, event := newInstruments(slog.New(slog.DiscardHandler), options), observedEvent("")
			b.ReportAllocs()
			for b.Loop() {
				ctx, w := watch.begin(b.Context(), opAppend, &event, 1)
				w.end(ctx, 1, nil)
			}
		})
	}
}

func TestAnUntracedWriteAllocatesNothing(t *testing.T) {
	watch := newInstruments(slog.New(slog.DiscardHandler), []Option{
		WithTracer(sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test")),
		WithMeter(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())).Meter("test")),
	})
	event, refused := observedEvent(""), errors.New("no")
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		ctx, w := watch.begin(ctx, opAppend, &event, 1)
		w.end(ctx, 1, nil)
		ctx, w = watch.begin(ctx, opRecord, &event, 1)
		w.end(ctx, 0, refused)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
