package chaos

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
)

const (
	visitEvery  = 10 * time.Millisecond
	visitWithin = 20 * time.Second
	// remembered bounds what is kept of failures.
	remembered = 1000
)

// traffic is the visitors of apps that nobody touches.
type traffic struct {
	edge  string
	hosts []string
	stop  context.CancelFunc
	wait  sync.WaitGroup

	mu      sync.Mutex
	served  int
	failed  []failure
	lost    int
	slowest time.Duration
}

// failure is a visit that got no answer, or a wrong one.
type failure struct {
	begun, ended time.Time
	what         string
}

// newTraffic lets two visitors in for each host: one that reads, one that posts.
func newTraffic(edge string, hosts []string) *traffic {
	ctx, stop := context.WithCancel(context.Background())
	t := &traffic{edge: edge, hosts: hosts, stop: stop}
	for _, host := range hosts {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.wait.Go(func() {
				for ctx.Err() == nil {
					t.visit(host, method)
					select {
					case <-ctx.Done():
					case <-time.After(visitEvery):
					}
				}
			})
		}
	}
	return t
}

func (t *traffic) visit(host, method string) {
	body := ""
	if method == http.MethodPost {
		body = strings.Repeat("x", 4096)
	}
	ctx, cancel := context.WithTimeout(context.Background(), visitWithin)
	defer cancel()
	begun := time.Now()
	answer, err := client.Visit(ctx, t.edge, host, method, "/", strings.NewReader(body))
	ended := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && answer.Status == http.StatusOK && answer.JSON()["read"] == float64(len(body)) {
		t.served++
		t.slowest = max(t.slowest, ended.Sub(begun))
		return
	}
	if err == nil {
		err = fmt.Errorf("it answers %s", answer)
	}
	t.lost++
	if len(t.failed) < remembered {
		t.failed = append(t.failed, failure{begun, ended, fmt.Sprintf("%s %s: %v", method, host, err)})
	}
}

// window is a time in which the edge is not there, so that visits may fail.
type window struct{ from, to time.Time }

// since empties the notes: how many visits were served, how many failed while the
// edge was away, and those that nothing excuses.
func (t *traffic) since(away *window) (served, excused int, failed []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.failed {
		if away != nil && f.ended.After(away.from) && f.begun.Before(away.to) {
			excused++
			continue
		}
		failed = append(failed, fmt.Sprintf("a visit of an app that nobody touched failed at %s: %s", f.ended.Format("15:04:05.000"), f.what))
	}
	served = t.served
	excused += t.lost - len(t.failed) // more than are remembered
	t.served, t.failed, t.lost = 0, nil, 0
	return served, excused, failed
}

func (t *traffic) leave() time.Duration {
	t.stop()
	t.wait.Wait()
	return t.slowest
}
