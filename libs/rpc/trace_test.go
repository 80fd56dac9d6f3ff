package rpc_test

import (
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/interop/grpc_testing"
)

func TestACallWithinTheProcessIsASpanBelowTheCallers(t *testing.T) {
	t.Parallel()
	exporter := tracetest.NewInMemoryExporter()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)).Tracer("test")
	client := grpc_testing.NewTestServiceClient(inMemory(t))

	ctx, caller := tracer.Start(t.Context(), "caller")
	for _, body := range []string{"", "refuse", "panic"} {
		// What comes back is not the question here.
		_, _ = client.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: []byte(body)}})
	}
	spans := exporter.GetSpans()
	if len(spans) != 3 {
		t.Fatalf("%d spans, want three", len(spans))
	}
	// A refusal is an answer; a panic is a failure.
	for i, status := range []string{"Unset", "Unset", "Error"} {
		s := spans[i]
		if s.Name != "grpc.testing.TestService/UnaryCall" || s.Parent.SpanID() != caller.SpanContext().SpanID() || s.Status.Code.String() != status {
			t.Errorf("the span is %s below %s, %s; want %s", s.Name, s.Parent.SpanID(), s.Status.Code, status)
		}
	}
}

func TestACallThatNobodyTracesMakesNoSpan(t *testing.T) {
	t.Parallel()
	exporter := tracetest.NewInMemoryExporter()
	never := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter), sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test")
	client := grpc_testing.NewTestServiceClient(inMemory(t))
	ctx, span := never.Start(t.Context(), "caller")
	defer span.End()
	if _, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	if n := len(exporter.GetSpans()); n != 0 {
		t.Errorf("%d spans", n)
	}
}
