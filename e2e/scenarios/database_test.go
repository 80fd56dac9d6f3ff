package scenarios

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestReadsWhileTheDatabaseIsAwaySayToTryAgain(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{})
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	reading, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	var mu sync.Mutex
	statuses := map[int]int{}
	for _, path := range []string{"/api/deploy/apps", a.path("/logs"), "/api/deploy/apps", a.path("/logs")} {
		readers.Go(func() {
			for reading.Err() == nil {
				answer, err := s.Client().Do(t.Context(), http.MethodGet, path, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				statuses[answer.Status]++
				mu.Unlock()
				if answer.Status == http.StatusOK {
					continue
				}
				if answer.Status != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" ||
					answer.Header.Get("Content-Type") != "application/problem+json" {
					t.Errorf("%s: %s %v", path, answer, answer.Header)
				}
			}
		})
	}
	answered := func(status int) int {
		mu.Lock()
		defer mu.Unlock()
		return statuses[status]
	}
	for range 2 {
		// A read that waits for rows to be as new as the log would sit the outage out.
		fresh := answered(http.StatusOK) + 20
		eventually(t, "reads wait for nothing", func(context.Context) (bool, string, error) {
			return answered(http.StatusOK) >= fresh, "", nil
		})
		before := answered(http.StatusServiceUnavailable)
		killChild(t, s, "/postgres")
		eventually(t, "a read meets the outage", func(context.Context) (bool, string, error) {
			return answered(http.StatusServiceUnavailable) > before, "", nil
		})
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "reads succeed", func(ctx context.Context) (bool, string, error) {
			answer, err := s.Client().Do(ctx, http.MethodGet, "/api/deploy/apps", nil)
			return err == nil && answer.Status == http.StatusOK, answer.String(), nil
		})
	}
	expect(t, s.Client(), http.StatusOK, http.MethodGet, a.path("/logs"), nil)
	a.serves("one")
	stop()
	readers.Wait()
	t.Logf("answers by status: %v", statuses)
}
