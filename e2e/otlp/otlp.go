// Package otlp receives what processes export over OTLP/gRPC and keeps the spans,
// so that tests can read a trace as an operator would see it.
package otlp

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Span is one span as it was exported.
type Span struct {
	TraceID, ID, Parent string
	Name                string
	// Service is the resource's service.name: the process it comes from.
	Service    string
	Attributes map[string]string
	// Error is the status' message of a failed span; empty otherwise.
	Error        string
	Began, Ended time.Time
}

// Receiver keeps every span it is sent. It is safe for concurrent use.
type Receiver struct {
	collectorv1.UnimplementedTraceServiceServer
	address string
	server  *grpc.Server

	mu      sync.Mutex
	spans   []Span
	exports int
	raw     []byte
}

// Listen starts a receiver on a free port of the loopback address. Close it.
func Listen(ctx context.Context) (*Receiver, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for spans: %w", err)
	}
	r := &Receiver{address: listener.Addr().String(), server: grpc.NewServer()}
	collectorv1.RegisterTraceServiceServer(r.server, r)
	// Serve ends with Close; before that its listener does not fail.
	go func() { _ = r.server.Serve(listener) }()
	return r, nil
}

// Close stops the receiver; what it has stays readable.
func (r *Receiver) Close() { r.server.Stop() }

// Env are the standard variables that make a process export to the receiver, as
// NAME=value.
func (r *Receiver) Env() []string {
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + r.address,
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_BSP_SCHEDULE_DELAY=100", // ms
	}
}

// Export implements the collector's trace service.
func (r *Receiver) Export(_ context.Context, in *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exports++
	raw, err := proto.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("keep what was exported: %w", err)
	}
	r.raw = append(r.raw, raw...)
	for _, resource := range in.GetResourceSpans() {
		service := attributes(resource.GetResource().GetAttributes())["service.name"]
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				r.spans = append(r.spans, span(service, s))
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// Raw is everything that was exported, as it was encoded: texts are in it as they are.
func (r *Receiver) Raw() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.raw)
}

// Exports is how often anything was exported.
func (r *Receiver) Exports() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.exports
}

// Spans are all spans so far, in the order they began.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	spans := slices.Clone(r.spans)
	slices.SortStableFunc(spans, func(a, b Span) int { return a.Began.Compare(b.Began) })
	return spans
}

// Trace are the spans of one trace so far, in the order they began.
func (r *Receiver) Trace(id string) []Span {
	return slices.DeleteFunc(r.Spans(), func(s Span) bool { return s.TraceID != id })
}

// Tree writes spans as an indented tree with times since the first one; a span
// whose parent is not there stands at the left.
func Tree(spans []Span) string {
	if len(spans) == 0 {
		return "no spans\n"
	}
	var b strings.Builder
	ids := map[string]bool{}
	for _, s := range spans {
		ids[s.ID] = true
	}
	var write func(parent string, depth int)
	write = func(parent string, depth int) {
		for _, s := range spans {
			if s.Parent == parent || parent == "" && !ids[s.Parent] {
				fmt.Fprintf(&b, "%8.1f ms %8.1f ms  %s%s  [%s]%s\n", milliseconds(s.Began.Sub(spans[0].Began)), milliseconds(s.Ended.Sub(s.Began)),
					strings.Repeat("  ", depth), s.Name, s.Service, failure(s))
				write(s.ID, depth+1)
			}
		}
	}
	write("", 0)
	return b.String()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func failure(s Span) string {
	if s.Error == "" {
		return ""
	}
	return " FAILED: " + s.Error
}

func span(service string, s *tracev1.Span) Span {
	out := Span{
		TraceID: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
		Name: s.GetName(), Service: service, Attributes: attributes(s.GetAttributes()),
		Began: time.Unix(0, int64(s.GetStartTimeUnixNano())), Ended: time.Unix(0, int64(s.GetEndTimeUnixNano())),
	}
	if s.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR {
		out.Error = s.GetStatus().GetMessage()
		if out.Error == "" {
			out.Error = "unknown"
		}
	}
	return out
}

func attributes(list []*commonv1.KeyValue) map[string]string {
	out := make(map[string]string, len(list))
	for _, kv := range list {
		switch v := kv.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			out[kv.GetKey()] = v.StringValue
		case *commonv1.AnyValue_IntValue:
			out[kv.GetKey()] = fmt.Sprint(v.IntValue)
		default:
			out[kv.GetKey()] = kv.GetValue().String()
		}
	}
	return out
}
