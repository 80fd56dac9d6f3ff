package statusview_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/statusview"
)

func record(t *testing.T, store eventstore.Store, payloads ...proto.Message) (last uint64) {
	t.Helper()
	for i, p := range payloads {
		var err error
		last, err = store.Record(t.Context(), eventstore.Event{
			Aggregate: subjects.Of("o", subjects.Deployment, "d"), ID: fmt.Sprintf("%T-%d-%d", p, i, time.Now().UnixNano()), Payload: p, Time: time.Now(),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return last
}

func follow(t *testing.T, store eventstore.Store) *statusview.View {
	t.Helper()
	view := statusview.New(store)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- view.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the view did not stop cleanly: %v", err)
		}
	})
	for deadline := time.Now().Add(time.Minute); view.Ready() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the view was never ready")
		}
		time.Sleep(time.Millisecond)
	}
	return view
}

func TestAPollIsAnsweredFromWhatHappened(t *testing.T) {
	t.Parallel()
	store := memory.New()
	view := statusview.New(store)
	if view.Ready() == nil {
		t.Error("ready before it has read anything")
	}
	record(t, store, live()...)
	view = follow(t, store)
	got, err := view.Get(t.Context(), "d")
	if err != nil || got == nil {
		t.Fatalf("got %v, %v", got, err)
	}
	if string(got.JSON) != `{"id":"d","status":"running","subdomain":"app","health_status":"healthy","last_health_check":null}` {
		t.Errorf("got %s", got.JSON)
	}
	at := time.Date(2026, 5, 21, 10, 5, 0, 123456789, time.UTC)
	if err := errors.Join(view.Probed("d", at), view.Probed("d", at.Add(-time.Hour)), view.Probed("nobody", at)); err != nil {
		t.Error(err)
	}
	if got, _ = view.Get(t.Context(), "d"); !json.Valid(got.JSON) || !got.LastHealthCheck.Equal(at) || !view.LastCheck("d").Equal(at) {
		t.Errorf("got %s, want the newest probe", got.JSON)
	}
	if other, err := view.Get(t.Context(), "nobody"); other != nil || err != nil {
		t.Errorf("got %v, %v of nobody", other, err)
	}
}

func TestAGetWaitsForTheCallersOwnWrite(t *testing.T) {
	t.Parallel()
	store := memory.New()
	last := record(t, store, live()...)
	view := follow(t, store)
	view.Wrote("d", last+1)
	type answer struct {
		status *statusview.Status
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		s, err := view.Get(t.Context(), "d")
		answers <- answer{s, err}
	}()
	record(t, store, restart("r2"))
	if got := <-answers; got.err != nil || got.status.Status != "deploying" {
		t.Errorf("got %+v, %v, want what was written", got.status, got.err)
	}

	view.Wrote("d", last+100)
	view.Wrote("d", last) // an older write asks for nothing
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := view.Get(ctx, "d"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v for a caller that is gone", err)
	}
	if _, err := view.Get(t.Context(), "d"); !errors.Is(err, statusview.ErrBehind) {
		t.Errorf("got %v, want ErrBehind", err)
	}
}
