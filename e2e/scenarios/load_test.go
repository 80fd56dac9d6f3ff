package scenarios

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/slipway-paas/slipway/e2e/client"
)

// visitors ask for an app all the time, half of them with a body.
type visitors struct {
	stop   context.CancelFunc
	wait   sync.WaitGroup
	mu     sync.Mutex
	served int
	failed []string
	// versions are those seen, in the order of their first sight.
	versions []string
}

// visitors lets n of each kind in.
func (a *app) visitors(n int) *visitors {
	ctx, stop := context.WithCancel(context.Background())
	v := &visitors{stop: stop}
	a.t.Cleanup(func() { v.leave() })
	for range n {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			v.wait.Add(1)
			go func() {
				defer v.wait.Done()
				for ctx.Err() == nil {
					v.visit(a, method)
				}
			}()
		}
	}
	return v
}

// visit is not cut short when visitors leave: a request that was sent is finished.
func (v *visitors) visit(a *app, method string) {
	body := ""
	if method == http.MethodPost {
		body = strings.Repeat("x", 4096)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := client.Visit(ctx, a.s.Edge, a.host, method, "/", strings.NewReader(body))
	version, _ := answer.JSON()["version"].(string)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err != nil:
		v.failed = append(v.failed, err.Error())
	case answer.Status != http.StatusOK || answer.JSON()["read"] != float64(len(body)):
		v.failed = append(v.failed, fmt.Sprint(method, " ", answer))
	default:
		v.served++
		if len(v.versions) == 0 || v.versions[len(v.versions)-1] != version {
			v.versions = append(v.versions, version)
		}
	}
}

// leave ends the visits and says how they went.
func (v *visitors) leave() (served int, failed []string) {
	v.stop()
	v.wait.Wait()
	return v.served, v.failed
}

func TestRestartsUnderLoadLoseNoRequest(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "v0"), "port": 8080})
	visitors := a.visitors(2)
	for i := range 3 {
		version := fmt.Sprintf("v%d", i+1)
		push(t, s, "latest", version)
		a.do("restart")
		a.serves(version)
		a.wait("running")
	}
	eventually(t, "old containers are gone", onlyContainers(a, 1))
	served, failed := visitors.leave()
	if len(failed) > 0 || served == 0 {
		t.Errorf("%d requests were served, %d failed: %.3v", served, len(failed), failed)
	}
	t.Logf("%d requests served over 3 restarts", served)
}

func TestRestartsThatOvertakeEachOtherEndInTheLast(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "v0"), "port": 8080})
	visitors := a.visitors(1)
	for i := range 5 {
		push(t, s, "latest", fmt.Sprintf("v%d", i+1))
		answer := call(t, a.c, http.MethodPost, a.path("/restart"), nil)
		if answer.Status != http.StatusOK && answer.Status != http.StatusUnprocessableEntity {
			t.Fatalf("restart %d: %s", i, answer)
		}
		if answer.Status == http.StatusUnprocessableEntity {
			a.wait("running")
			a.do("restart")
		}
	}
	a.serves("v5")
	a.wait("running")
	eventually(t, "one container is left", onlyContainers(a, 1))
	if served, failed := visitors.leave(); len(failed) > 0 || served == 0 {
		t.Errorf("%d requests were served, %d failed: %.3v", served, len(failed), failed)
	}
}
