package claims_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
)

var name = claims.Name{Kind: claims.Subdomain, Value: "my-app"}

func book() claims.Book {
	return claims.Book{Store: memory.New(), Source: "test", Now: func() time.Time { return time.Unix(0, 0).UTC() }}
}

func TestANameHasOneHolderAtATime(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := book()
	take(t, b, "deployment/1")
	if again, err := b.Take(ctx, "deployment/1", name); err != nil || len(again) != 0 {
		t.Fatalf("the holder takes its own name again: %v, %v", again, err)
	}
	_, err := b.Take(ctx, "deployment/2", name)
	var taken *claims.TakenError
	if !errors.As(err, &taken) || len(taken.Names) != 1 || taken.Names[0] != name {
		t.Fatalf("another took it: %v", err)
	}
	if events, err := b.Release(ctx, "deployment/2", name); err != nil || len(events) != 0 {
		t.Fatalf("another released it: %v, %v", events, err)
	}
	free, err := b.Release(ctx, "deployment/1", name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, b, free)
	take(t, b, "deployment/2")
}

func TestTwoWhoTakeAtOnceGetOneName(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := book()
	first, err := b.Take(ctx, "deployment/1", name)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Take(ctx, "deployment/2", name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, b, first)
	if _, err := b.Store.AppendBatch(ctx, second); !errors.Is(err, eventstore.ErrConflict) {
		t.Fatalf("the second append gave %v, want a conflict", err)
	}
}

func TestANameMovesFromItsHolderToAnother(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := book()
	take(t, b, "deployment/1")
	held, err := b.Load(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, b, []eventstore.Expected{b.Move(name, held, "deployment/2")})
	if now, err := b.Load(ctx, name); err != nil || now.Holder != "deployment/2" {
		t.Fatalf("after the move the holder is %+v, %v", now, err)
	}
	if _, err := b.Store.AppendBatch(ctx, []eventstore.Expected{b.Move(name, held, "deployment/3")}); !errors.Is(err, eventstore.ErrConflict) {
		t.Fatalf("a move from what was gave %v, want a conflict", err)
	}
}

func TestTheSameNameOfAnotherKindIsAnotherClaim(t *testing.T) {
	t.Parallel()
	if name.Aggregate() == (claims.Name{Kind: claims.CustomDomain, Value: "my-app"}).Aggregate() {
		t.Fatal("kinds share a claim")
	}
}

func take(t *testing.T, b claims.Book, holder string) {
	t.Helper()
	events, err := b.Take(context.Background(), holder, name)
	if err != nil {
		t.Fatalf("%s takes the name: %v", holder, err)
	}
	write(t, b, events)
}

func write(t *testing.T, b claims.Book, events []eventstore.Expected) {
	t.Helper()
	if _, err := b.Store.AppendBatch(context.Background(), events); err != nil {
		t.Fatalf("appending: %v", err)
	}
}
