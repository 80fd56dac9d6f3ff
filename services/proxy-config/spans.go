package proxyconfig

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/proxy-config/routing"
)

// startWrite begins the span of a change of one host's route.
func (w *writer) startWrite(ctx context.Context, operation, host string) (context.Context, trace.Span) {
	ctx, span := observe.Continue(ctx, w.deps.Tracer, "", "write route", trace.SpanKindProducer)
	if span.IsRecording() {
		span.SetName(operation + " " + subjects.BucketRoutes)
		span.SetAttributes(attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", subjects.BucketRoutes),
			attribute.String("slipway.host", host))
	}
	return ctx, span
}

// startFact begins the span of a fact about routes; it covers the wait for the edges.
func (w *writer) startFact(ctx context.Context, fact routing.Fact, payload proto.Message, revision uint64) (context.Context, trace.Span) {
	ctx = observe.WithTraceParent(ctx, fact.TraceParent)
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, trace.SpanFromContext(context.Background())
	}
	name := "wait for edges to serve the route"
	if fact.Removed != nil {
		name = "wait for edges to drop the route"
	}
	_, living := w.edges.applied()
	return w.deps.Tracer.Start(ctx, name, trace.WithTimestamp(w.since[fact.ID]), trace.WithAttributes(
		attribute.String("slipway.deployment", fact.Aggregate.ID), attribute.StringSlice("slipway.hosts", fact.Hosts),
		attribute.Int64("slipway.route.revision", int64(revision)), attribute.Int("slipway.edges", living),
		attribute.String("slipway.event.type", string(payload.ProtoReflect().Descriptor().Name()))))
}
