// Package peers watches whether the other services are ready when each is a
// process of its own: by gRPC's health service or by its readiness page.
package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	every   = time.Second
	timeout = 800 * time.Millisecond
)

// Check is nil when a service is ready.
type Check func(ctx context.Context) error

// Watch asks every check each second and remembers what it said.
type Watch struct {
	checks map[string]Check
	mu     sync.Mutex
	ready  map[string]bool
}

// New makes a watch; until the first answers nothing is ready.
func New(checks map[string]Check) *Watch {
	w := &Watch{checks: maps.Clone(checks), ready: map[string]bool{}}
	for name := range w.checks {
		w.ready[name] = false
	}
	return w
}

// Services is what every check said last.
func (w *Watch) Services() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.ready)
}

// Run asks until ctx ends and then returns nil.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		w.ask(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *Watch) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var asking sync.WaitGroup
	for name, check := range w.checks {
		asking.Go(func() {
			ready := check(ctx) == nil
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ready[name] = ready
		})
	}
	asking.Wait()
}

// GRPC checks by the standard health service.
func GRPC(conn grpc.ClientConnInterface) Check {
	client := healthpb.NewHealthClient(conn)
	return func(ctx context.Context) error {
		res, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			return fmt.Errorf("ask for health: %w", err)
		}
		if res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("health is %s", res.GetStatus())
		}
		return nil
	}
}

// HTTP checks that the page answers 200.
func HTTP(page string) Check {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
		if err != nil {
			return fmt.Errorf("ask for readiness: %w", err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("ask for readiness: %w", err)
		}
		defer res.Body.Close()
		// Read to its end so that the connection is kept.
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("readiness is %s", res.Status)
		}
		return nil
	}
}

// Parse reads name=URL pairs into HTTP checks, e.g. health=http://127.0.0.1:9205/readyz.
func Parse(pairs []string) (map[string]Check, error) {
	checks := make(map[string]Check, len(pairs))
	for _, pair := range pairs {
		name, page, ok := strings.Cut(pair, "=")
		u, err := url.Parse(page)
		if !ok || name == "" || err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("%q is no name=URL pair such as health=http://127.0.0.1:9205/readyz", pair)
		}
		if checks[name] != nil {
			return nil, errors.New(name + " is there twice")
		}
		checks[name] = HTTP(page)
	}
	return checks, nil
}
