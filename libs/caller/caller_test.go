package caller_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/caller"
)

// received is the context that a server gets of what a client sends.
func received(ctx context.Context) context.Context {
	sent, _ := metadata.FromOutgoingContext(ctx)
	return metadata.NewIncomingContext(context.Background(), sent)
}

func TestWhoCallsArrives(t *testing.T) {
	t.Parallel()
	ctx, err := caller.Outgoing(t.Context(), wrapperspb.String("ada"))
	if err != nil {
		t.Fatal(err)
	}
	got := &wrapperspb.StringValue{}
	if err := caller.Incoming(received(ctx), got); err != nil || got.GetValue() != "ada" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNobodyAndTwoAreNobody(t *testing.T) {
	t.Parallel()
	twice, err := caller.Outgoing(t.Context(), wrapperspb.String("ada"))
	if err != nil {
		t.Fatal(err)
	}
	if twice, err = caller.Outgoing(twice, wrapperspb.String("eve")); err != nil {
		t.Fatal(err)
	}
	broken := metadata.NewIncomingContext(t.Context(), metadata.Pairs("slipway-principal-bin", "\xff\xff"))
	for name, ctx := range map[string]context.Context{"nobody": t.Context(), "two": received(twice), "what cannot be read": broken} {
		if err := caller.Incoming(ctx, &wrapperspb.StringValue{}); !errors.Is(err, caller.ErrNobody) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
