// Package rpc is how services talk: a gRPC server and client set up the same way
// everywhere (traced, bounded, logged, recovering from panics), and a Memory
// transport with the same interfaces for services that share a process.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// MaxMessage bounds one message, in bytes: a public body of 1 MiB and room for
// what the platform adds to it.
const MaxMessage = 2 << 20

// stopAfter bounds how long a stopping server waits for calls under way.
const stopAfter = 5 * time.Second

// Server is a gRPC server with the standard health service and reflection.
type Server struct {
	*grpc.Server
	health *health.Server
}

// NewServer makes a server that traces, logs errors of its own making, survives
// panics and refuses messages above MaxMessage. It starts NOT_SERVING: see SetServing.
func NewServer(log *slog.Logger, options ...grpc.ServerOption) *Server {
	s := &Server{health: health.NewServer()}
	options = append([]grpc.ServerOption{
		grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithFilter(s.observed()))),
		grpc.ChainUnaryInterceptor(guardUnary(log)),
		grpc.ChainStreamInterceptor(guardStream(log)),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.MaxConcurrentStreams(1024),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}, options...)
	s.Server = grpc.NewServer(options...)
	s.SetServing(false)
	healthpb.RegisterHealthServer(s.Server, s.health)
	reflection.Register(s.Server)
	return s
}

// SetServing is what the health service answers for the server as a whole and for
// each service that is registered by now.
func (s *Server) SetServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
	for name := range s.GetServiceInfo() {
		s.health.SetServingStatus(name, state)
	}
}

// ServeUntil serves on the listener until ctx ends, then lets calls under way
// finish for at most five seconds. It returns nil on a clean stop.
func (s *Server) ServeUntil(ctx context.Context, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve gRPC on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	force := time.AfterFunc(stopAfter, s.Stop)
	defer force.Stop()
	s.GracefulStop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC on %s: %w", listener.Addr(), err)
	}
	return nil
}

// retryPolicy repeats only calls that never reached a handler or whose server
// said UNAVAILABLE; commands are idempotent by their ids, so that is safe: see named.
const retryPolicy = `{"methodConfig":[{"name":[{}],"retryPolicy":{
	"maxAttempts":4,"initialBackoff":"0.05s","maxBackoff":"0.5s","backoffMultiplier":3,
	"retryableStatusCodes":["UNAVAILABLE"]}}]}`

// Dial makes a client of the server at target (host:port). It connects when first
// used and again whenever the connection breaks. The caller closes it.
func Dial(target string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithFilter(worthObserving))),
		grpc.WithDefaultServiceConfig(retryPolicy),
		grpc.WithChainUnaryInterceptor(named),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
	}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return conn, nil
}

// observed says which calls get spans and figures: those of methods that there are,
// so that callers who make names up make no series.
func (s *Server) observed() otelgrpc.Filter {
	methods := sync.OnceValue(func() map[string]bool {
		all := map[string]bool{}
		for service, info := range s.GetServiceInfo() {
			for _, m := range info.Methods {
				all["/"+service+"/"+m.Name] = true
			}
		}
		return all
	})
	return func(call *stats.RPCTagInfo) bool { return methods()[call.FullMethodName] && worthObserving(call) }
}

// worthObserving leaves out the health service: it is asked every second, by nobody
// who wants to read about it.
func worthObserving(call *stats.RPCTagInfo) bool {
	return !strings.HasPrefix(call.FullMethodName, "/"+healthpb.Health_ServiceDesc.ServiceName+"/")
}

func guardUnary(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (res any, err error) {
		defer func() { err = guard(ctx, log, info.FullMethod, recover(), err) }()
		return next(ctx, req)
	}
}

func guardStream(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
		defer func() { err = guard(stream.Context(), log, info.FullMethod, recover(), err) }()
		return next(srv, stream)
	}
}

// guard turns a panic into an error and logs what is the server's own fault; what
// is the caller's is the caller's to log.
func guard(ctx context.Context, log *slog.Logger, method string, panicked any, err error) error {
	if panicked != nil {
		log.ErrorContext(ctx, "a handler panicked", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "the handler of "+method+" panicked")
	}
	if err != nil && ownFault(status.Code(err)) && ctx.Err() == nil {
		log.ErrorContext(ctx, "call failed", "method", method, "error", err)
	}
	return err
}

// ownFault reports whether a call that ended so failed because of the server.
func ownFault(code codes.Code) bool {
	switch code {
	case codes.Unknown, codes.Internal, codes.DataLoss, codes.Unavailable:
		return true
	}
	return false
}
