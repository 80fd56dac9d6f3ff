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
	return stack.Standalone(context.Background(), roomy(stack.Options{}))
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

// roomy has deadlines for tests, and nodes that do not depend on the machine the
// tests run on.
func roomy(o stack.Options) stack.Options {
	o.Rollout = stack.Quick()
	if o.NodeMemoryMB == 0 {
		o.NodeMemoryMB = 16 << 10
	}
	if o.NodeCPUMillicores == 0 {
		o.NodeCPUMillicores = 16_000
	}
	return o
}

// own is a platform for one story alone, because it is about to suffer.
func own(t *testing.T, start func(context.Context, stack.Options) (*stack.Stack, error), o stack.Options) *stack.Stack {
	t.Helper()
	s, err := start(t.Context(), roomy(o))
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
