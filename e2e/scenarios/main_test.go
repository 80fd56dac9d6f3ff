// Package scenarios tells the platform's stories on the real thing: real Podman,
// Caddy, NATS and PostgreSQL, and calls that curl could make.
package scenarios

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/slipway-paas/slipway/e2e/stack"
)

// shared is the platform that most stories live on side by side, started by the
// first that asks.
var shared = sync.OnceValues(func() (*stack.Stack, error) {
	return stack.Standalone(context.Background(), stack.Options{Rollout: stack.Quick()})
})

// sharedUsed keeps TestMain from starting a platform only to stop it.
var sharedUsed sync.Once

func TestMain(m *testing.M) {
	code := m.Run()
	used := true
	sharedUsed.Do(func() { used = false })
	if used {
		if s, err := shared(); err == nil {
			if code != 0 {
				fmt.Fprintln(os.Stderr, s.Tails())
			}
			if err := s.Close(context.Background()); err != nil {
				fmt.Fprintln(os.Stderr, "take the platform away:", err)
				code = max(code, 1)
			}
		}
	}
	os.Exit(code)
}

// platform is the shared platform.
func platform(t *testing.T) *stack.Stack {
	t.Helper()
	sharedUsed.Do(func() {})
	s, err := shared()
	if err != nil {
		t.Fatalf("start the platform: %v", err)
	}
	return s
}

// own is a platform for one story alone, because it is about to suffer.
func own(t *testing.T, start func(context.Context, stack.Options) (*stack.Stack, error), o stack.Options) *stack.Stack {
	t.Helper()
	if o.Rollout == nil {
		o.Rollout = stack.Quick()
	}
	s, err := start(t.Context(), o)
	if err != nil {
		t.Fatalf("start the platform: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Tails())
		}
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("take the platform away: %v", err)
		}
	})
	return s
}
