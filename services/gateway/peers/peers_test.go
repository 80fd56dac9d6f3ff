package peers_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/gateway/peers"
)

func TestWhatServicesSayIsWatched(t *testing.T) {
	t.Parallel()
	var code atomic.Int32
	code.Store(http.StatusServiceUnavailable)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(code.Load())) }))
	t.Cleanup(page.Close)
	checks, err := peers.Parse([]string{"health=" + page.URL + "/readyz"})
	if err != nil {
		t.Fatal(err)
	}
	checks["scheduler"] = func(context.Context) error { return nil }
	checks["identity"] = func(context.Context) error { return errors.New("gone") }
	w := peers.New(checks)
	if got := w.Services(); len(got) != 3 || got["scheduler"] {
		t.Errorf("before anything was asked: %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for _, ready := range []bool{false, true} {
		if ready {
			code.Store(http.StatusOK)
		}
		want := map[string]bool{"scheduler": true, "identity": false, "health": ready}
		for deadline := time.Now().Add(time.Minute); !maps.Equal(w.Services(), want); {
			if time.Now().After(deadline) {
				t.Fatalf("got %v, want %v", w.Services(), want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("a clean stop returned %v", err)
	}
}

func TestWrongPairsAreRefused(t *testing.T) {
	t.Parallel()
	for _, pairs := range [][]string{{"health"}, {"=http://a"}, {"a=b"}, {"a=ftp://b"}, {"a=http://b", "a=http://c"}} {
		if _, err := peers.Parse(pairs); err == nil {
			t.Errorf("%v was accepted", pairs)
		}
	}
}
