package rpc_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/metadata"

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
