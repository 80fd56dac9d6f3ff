package observe_test

import (
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/slipway-paas/slipway/libs/observe"
)

const (
	recorded   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	unrecorded = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

func TestWorkGoesOnInTheTraceThatAskedForIt(t *testing.T) {
	t.Parallel()
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	tracer := provider.Tracer("test")

	ctx, outer := observe.Continue(t.Context(), tracer, recorded, "outer", trace.SpanKindInternal)
	// The caller's own span comes before what an event names.
	_, inner := observe.Continue(ctx, tracer, "00-11111111111111111111111111111111-2222222222222222-01", "inner", trace.SpanKindInternal)
	inner.End()
	outer.End()

	spans := exporter.GetSpans()
	if len(spans) != 2 {
		t.Fatalf("%d spans, want two", len(spans))
	}
	for _, s := range spans {
		if got := s.SpanContext.TraceID().String(); got != recorded[3:35] {
			t.Errorf("%s is in the trace %s", s.Name, got)
		}
	}
	if spans[1].Parent.SpanID().String() != recorded[36:52] || spans[0].Parent.SpanID() != spans[1].SpanContext.SpanID() {
		t.Errorf("the parents are %s and %s", spans[1].Parent.SpanID(), spans[0].Parent.SpanID())
	}
}

func TestATraceThatNobodyRecordsGetsNoSpan(t *testing.T) {
	t.Parallel()
	exporter := tracetest.NewInMemoryExporter()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)).Tracer("test")
	for _, parent := range []string{"", unrecorded, "nonsense", recorded[:54] + "x"} {
		ctx, span := observe.Continue(t.Context(), tracer, parent, "work", trace.SpanKindInternal)
		span.End()
		if ctx != t.Context() || span.IsRecording() {
			t.Errorf("%q: a span was made", parent)
		}
	}
	ctx := observe.WithTraceParent(t.Context(), unrecorded)
	if _, span := observe.Continue(ctx, tracer, recorded, "work", trace.SpanKindInternal); span.IsRecording() {
		t.Error("the caller's trace is not recorded, the event's got a span")
	}
	if n := len(exporter.GetSpans()); n != 0 {
		t.Errorf("%d spans were exported", n)
	}
}

// TestWorkOutsideARecordedTraceAllocatesNothing is what "off costs nothing" means.
func TestWorkOutsideARecordedTraceAllocatesNothing(t *testing.T) {
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test")
	for _, parent := range []string{"", unrecorded} {
		ctx := t.Context()
		if n := testing.AllocsPerRun(100, func() {
			_, span := observe.Continue(ctx, tracer, parent, "work", trace.SpanKindProducer)
			span.End()
		}); n != 0 {
			t.Errorf("%q: %v allocations", parent, n)
		}
	}
}

func BenchmarkContinue(b *testing.B) {
	off := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test")
	on := sdktrace.NewTracerProvider().Tracer("test")
	for _, one := range []struct {
		name, parent string
		tracer       trace.Tracer
	}{{"off/no parent", "", off}, {"off/unrecorded parent", unrecorded, off}, {"on", recorded, on}} {
		b.Run(one.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, span := observe.Continue(b.Context(), one.tracer, one.parent, "work", trace.SpanKindProducer)
				span.End()
			}
		})
	}
}

func BenchmarkWithTraceParent(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = observe.WithTraceParent(b.Context(), unrecorded)
	}
}
