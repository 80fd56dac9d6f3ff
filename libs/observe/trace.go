package observe

import (
	"context"
	"log/slog"
	"strconv"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// TraceParentHeader is where a message carries its traceparent.
const TraceParentHeader = "traceparent"

// TraceParent is the context's span as a W3C traceparent, to travel in an event
// header or a view's value; empty when there is none.
func TraceParent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[TraceParentHeader]
}

// WithTraceParent returns ctx with that span as the parent of the next one. An
// empty or malformed text changes nothing.
func WithTraceParent(ctx context.Context, traceParent string) context.Context {
	if traceParent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, oneHeader(traceParent))
}

// oneHeader is a carrier of nothing but a traceparent.
type oneHeader string

func (h oneHeader) Get(key string) string {
	if key == TraceParentHeader {
		return string(h)
	}
	return ""
}

func (h oneHeader) Set(string, string) {}
func (h oneHeader) Keys() []string     { return []string{TraceParentHeader} }

// Continue starts a span of the trace that ctx is in or, when it is in none, of the
// one that traceParent names. When nobody records that trace there is no span and
// ctx comes back as it was, at no cost; so set attributes only on a span that
// IsRecording, and use WithTraceParent first where lines are logged.
func Continue(ctx context.Context, tracer trace.Tracer, traceParent, name string, kind trace.SpanKind) (context.Context, trace.Span) {
	parent := trace.SpanContextFromContext(ctx)
	if !parent.IsValid() && sampled(traceParent) {
		ctx = WithTraceParent(ctx, traceParent)
		parent = trace.SpanContextFromContext(ctx)
	}
	if !parent.IsSampled() {
		return ctx, trace.SpanFromContext(context.Background())
	}
	return tracer.Start(ctx, name, trace.WithSpanKind(kind))
}

// Failed marks the span when err is not nil, and returns err.
func Failed(span trace.Span, err error) error {
	if err != nil && span.IsRecording() {
		span.SetStatus(codes.Error, err.Error())
	}
	return err
}

// sampled reads the flag at the end of a traceparent without taking it apart.
func sampled(traceParent string) bool {
	const length = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if len(traceParent) < length {
		return false
	}
	flags, err := strconv.ParseUint(traceParent[length-2:length], 16, 8)
	return err == nil && trace.TraceFlags(flags).IsSampled()
}

// traceHandler adds the context's trace to each record.
type traceHandler struct{ slog.Handler }

func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceHandler{h.Handler.WithAttrs(attrs)}
}

func (h traceHandler) WithGroup(name string) slog.Handler {
	return traceHandler{h.Handler.WithGroup(name)}
}
