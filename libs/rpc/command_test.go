package rpc_test

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/slipway-paas/slipway/libs/rpc"
)

func TestACommandsIDCrossesTheCall(t *testing.T) {
	t.Parallel()
	const id = "0198f3b2-0000-7000-8000-000000000001"
	sent, _ := metadata.FromOutgoingContext(rpc.WithCommandID(t.Context(), id))
	if got := rpc.CommandID(metadata.NewIncomingContext(t.Context(), sent)); got != id {
		t.Errorf("got %q", got)
	}
	if got := rpc.CommandID(t.Context()); got != "" {
		t.Errorf("without one: %q", got)
	}
	for _, bad := range [][]string{{"x"}, {""}, {id, id}} {
		if got := rpc.CommandID(metadata.NewIncomingContext(t.Context(), metadata.MD{"slipway-command-id": bad})); got != "" {
			t.Errorf("%q is taken as %q", bad, got)
		}
	}
}

func TestWhatACallMakesHasTheSameIDWhenItIsMadeAgain(t *testing.T) {
	t.Parallel()
	under := func(id string) context.Context {
		return metadata.NewIncomingContext(t.Context(), metadata.Pairs("slipway-command-id", id))
	}
	one, other := under("0198f3b2-0000-7000-8000-000000000001"), under("0198f3b2-0000-7000-8000-000000000002")
	if rpc.NewID(one, "org") != rpc.NewID(one, "org") {
		t.Error("the same call gives two IDs")
	}
	if rpc.NewID(one, "org") == rpc.NewID(one, "api-key") || rpc.NewID(one, "org") == rpc.NewID(other, "org") || rpc.NewID(t.Context(), "org") == rpc.NewID(t.Context(), "org") {
		t.Error("two things have one ID")
	}
}

// away says at first that it is not there, and notes under which IDs it is asked.
type away struct {
	grpc_testing.UnimplementedTestServiceServer
	asked chan string
}

func (a away) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	a.asked <- rpc.CommandID(ctx)
	if len(a.asked)%2 == 1 {
		return nil, status.Error(codes.Unavailable, "lost the answer")
	}
	return &grpc_testing.SimpleResponse{}, nil
}

func TestACallThatIsRepeatedIsTheSameCommand(t *testing.T) {
	t.Parallel()
	a := away{asked: make(chan string, 4)}
	server := rpc.NewServer(discard)
	grpc_testing.RegisterTestServiceServer(server, a)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return server.ServeUntil(ctx, listener) })
	conn, err := rpc.Dial(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	const own = "0198f3b2-0000-7000-8000-000000000003"
	for _, ctx := range []context.Context{t.Context(), rpc.WithCommandID(t.Context(), own)} {
		if _, err := grpc_testing.NewTestServiceClient(conn).UnaryCall(ctx, say("")); err != nil {
			t.Fatal(err)
		}
	}
	first, again, given, givenAgain := <-a.asked, <-a.asked, <-a.asked, <-a.asked
	if first == "" || first != again || given != own || givenAgain != own || first == own {
		t.Errorf("asked under %q, then %q; under %q, then %q", first, again, given, givenAgain)
	}
}
