package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
)

// Memory joins services of one process: register servers on it, hand Conn to
// clients. A unary call is a function call with copied messages, so that neither
// side can change the other's; a stream goes over a real gRPC server in memory.
// Status codes, details, metadata, deadlines and panics are as over the network.
type Memory struct {
	server   *Server
	listener *bufconn.Listener
	client   *grpc.ClientConn
	guard    grpc.UnaryServerInterceptor

	mu      sync.RWMutex
	methods map[string]method
}

type method struct {
	desc *grpc.MethodDesc
	impl any
}

// NewMemory makes an empty Memory. Close it at the end.
func NewMemory(log *slog.Logger) (*Memory, error) {
	listener := bufconn.Listen(256 << 10)
	client, err := Dial("passthrough:///memory", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return listener.DialContext(ctx)
	}))
	if err != nil {
		return nil, err
	}
	return &Memory{
		server: NewServer(log), listener: listener, client: client,
		guard: guardUnary(log), methods: map[string]method{},
	}, nil
}

// RegisterService makes Memory a grpc.ServiceRegistrar. Register before Run.
func (m *Memory) RegisterService(desc *grpc.ServiceDesc, impl any) {
	m.server.RegisterService(desc, impl)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range desc.Methods {
		m.methods["/"+desc.ServiceName+"/"+desc.Methods[i].MethodName] = method{desc: &desc.Methods[i], impl: impl}
	}
}

// Run serves streams until ctx ends; unary calls need no Run.
func (m *Memory) Run(ctx context.Context) error {
	m.server.SetServing(true)
	return m.server.ServeUntil(ctx, m.listener)
}

// Conn is the client's side, for generated New…Client functions.
func (m *Memory) Conn() grpc.ClientConnInterface { return m }

// Close ends the client's side.
func (m *Memory) Close() error { return m.client.Close() }

// Invoke makes Memory a grpc.ClientConnInterface: one unary call.
func (m *Memory) Invoke(ctx context.Context, name string, args, reply any, _ ...grpc.CallOption) error {
	m.mu.RLock()
	target, ok := m.methods[name]
	m.mu.RUnlock()
	if !ok {
		return status.Error(codes.Unimplemented, "no service in this process answers "+name)
	}
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	ctx, span := startSpan(ctx, name)
	defer span.End()
	res, err := target.desc.Handler(target.impl, serverContext(ctx), func(in any) error { return copyMessage(in, args) }, m.guard)
	if err != nil {
		err = asStatus(err)
		setStatus(span, err)
		return err
	}
	return copyMessage(reply, res)
}

// startSpan makes the span that a call over the network would have, when the
// caller's own is recorded.
func startSpan(ctx context.Context, name string) (context.Context, trace.Span) {
	caller := trace.SpanFromContext(ctx)
	if !caller.IsRecording() {
		return ctx, trace.SpanFromContext(context.Background())
	}
	name = strings.TrimPrefix(name, "/")
	return caller.TracerProvider().Tracer("slipway/libs/rpc").Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("rpc.system", "grpc"), attribute.String("rpc.method", name)))
}

// setStatus marks the span of a call that failed for a reason of the server's own;
// a refusal is an answer.
func setStatus(span trace.Span, err error) {
	if !span.IsRecording() {
		return
	}
	code := status.Code(err)
	span.SetAttributes(attribute.String("rpc.response.status_code", code.String()))
	if ownFault(code) || code == codes.DeadlineExceeded || code == codes.Unimplemented {
		span.SetStatus(otelcodes.Error, err.Error())
	}
}

// NewStream makes Memory a grpc.ClientConnInterface: one stream.
func (m *Memory) NewStream(ctx context.Context, desc *grpc.StreamDesc, name string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	return m.client.NewStream(ctx, desc, name, options...)
}

// serverContext turns the caller's outgoing metadata into incoming metadata.
func serverContext(ctx context.Context) context.Context {
	out, _ := metadata.FromOutgoingContext(ctx)
	in := make(metadata.MD, len(out))
	for key, values := range out {
		in[strings.ToLower(key)] = append([]string(nil), values...)
	}
	return metadata.NewIncomingContext(metadata.NewOutgoingContext(ctx, nil), in)
}

func asStatus(err error) error {
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	if st := status.FromContextError(err); st.Code() != codes.Unknown {
		return st.Err()
	}
	return status.Error(codes.Unknown, err.Error())
}

func copyMessage(to, from any) error {
	dst, ok := to.(proto.Message)
	src, ok2 := from.(proto.Message)
	if !ok || !ok2 {
		return status.Error(codes.Internal, fmt.Sprintf("%T to %T: not protobuf messages", from, to))
	}
	proto.Reset(dst)
	proto.Merge(dst, src)
	return nil
}
