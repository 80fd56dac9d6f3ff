package rpc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
)

// parrot is a service whose calls do what the tests need.
type parrot struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (parrot) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	switch string(in.GetPayload().GetBody()) {
	case "panic":
		panic("squawk")
	case "refuse":
		return nil, problem.Validation([]problem.Field{{Field: "seed", Message: "is missing"}})
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	case "change":
		in.Payload.Body = []byte("changed")
	}
	return &grpc_testing.SimpleResponse{Payload: in.Payload, Hostname: strings.Join(md.Get("Who"), ",")}, nil
}

func (parrot) StreamingOutputCall(in *grpc_testing.StreamingOutputCallRequest, out grpc_testing.TestService_StreamingOutputCallServer) error {
	for range in.GetResponseParameters() {
		if err := out.Send(&grpc_testing.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
	return nil
}

var discard = slog.New(slog.DiscardHandler)

func overNetwork(t *testing.T) grpc.ClientConnInterface {
	server := rpc.NewServer(discard)
	grpc_testing.RegisterTestServiceServer(server, parrot{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return server.ServeUntil(ctx, listener) })
	conn, err := rpc.Dial(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func inMemory(t *testing.T) grpc.ClientConnInterface {
	memory, err := rpc.NewMemory(discard)
	if err != nil {
		t.Fatal(err)
	}
	grpc_testing.RegisterTestServiceServer(memory, parrot{})
	run(t, memory.Run)
	t.Cleanup(func() {
		if err := memory.Close(); err != nil {
			t.Error(err)
		}
	})
	return memory.Conn()
}

func run(t *testing.T, part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

func say(text string) *grpc_testing.SimpleRequest {
	return &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: []byte(text)}}
}

// Callers must not be able to tell the transports apart.
func TestBothTransportsBehaveTheSame(t *testing.T) {
	t.Parallel()
	for name, connect := range map[string]func(*testing.T) grpc.ClientConnInterface{"network": overNetwork, "memory": inMemory} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			client := grpc_testing.NewTestServiceClient(connect(t))

			t.Run("answers, with metadata", func(t *testing.T) {
				res, err := client.UnaryCall(metadata.AppendToOutgoingContext(ctx, "Who", "polly"), say("hello"))
				if err != nil || string(res.GetPayload().GetBody()) != "hello" || res.GetHostname() != "polly" {
					t.Errorf("got %v, %v", res, err)
				}
			})
			t.Run("a handler cannot change the caller's message", func(t *testing.T) {
				mine := say("change")
				if _, err := client.UnaryCall(ctx, mine); err != nil || string(mine.GetPayload().GetBody()) != "change" {
					t.Errorf("mine became %v, %v", mine, err)
				}
			})
			t.Run("a problem arrives as it was", func(t *testing.T) {
				_, err := client.UnaryCall(ctx, say("refuse"))
				got := problem.From(err)
				if got.Code != problem.CodeValidation || got.Status != 422 || len(got.Fields) != 1 {
					t.Errorf("got %+v of %v", got, err)
				}
			})
			t.Run("a panic is an error", func(t *testing.T) {
				if _, err := client.UnaryCall(ctx, say("panic")); status.Code(err) != codes.Internal {
					t.Errorf("got %v", err)
				}
			})
			t.Run("a deadline holds", func(t *testing.T) {
				short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
				if _, err := client.UnaryCall(short, say("wait")); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("got %v", err)
				}
			})
			t.Run("an unknown method is said to be one", func(t *testing.T) {
				if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); status.Code(err) != codes.Unimplemented {
					t.Errorf("got %v", err)
				}
			})
			t.Run("streams", func(t *testing.T) {
				stream, err := client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{
					ResponseParameters: make([]*grpc_testing.ResponseParameters, 3),
				})
				if err != nil {
					t.Fatal(err)
				}
				got := 0
				for _, err = stream.Recv(); err == nil; _, err = stream.Recv() {
					got++
				}
				if !errors.Is(err, io.EOF) || got != 3 {
					t.Errorf("%d messages, then %v", got, err)
				}
			})
		})
	}
}

func TestAServerSaysWhetherItServes(t *testing.T) {
	t.Parallel()
	server := rpc.NewServer(discard)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return server.ServeUntil(ctx, listener) })
	conn, err := rpc.Dial(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, serving := range []bool{false, true} {
		server.SetServing(serving)
		res, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || (res.GetStatus() == healthpb.HealthCheckResponse_SERVING) != serving {
			t.Errorf("serving %v: %v, %v", serving, res, err)
		}
	}
}
