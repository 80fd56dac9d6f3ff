package edge_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A rollout, 20 times, under constant GETs and POSTs: the new instance is in the
// table before the old one leaves it, the old one ends once every edge acknowledged
// and the drain is over, and ending means what it means for a real app: idle
// connections are closed, requests in flight finish.
func TestNoRequestFailsWhileUpstreamsAreSwapped(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	const host, swaps, workers = "busy.test", 20, 8

	old := httptest.NewServer(http.HandlerFunc(work))
	c.applied(c.put(serving(host, addressOf(old))))

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var asked atomic.Int64
	failures := make(chan string, 1000)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
	for i := range workers {
		load.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := ask(client, e.http, host, (i+n)%2 == 0); err != "" {
					failures <- err
				}
				asked.Add(1)
			}
		})
	}
	for range swaps {
		next := httptest.NewServer(http.HandlerFunc(work))
		c.applied(c.put(serving(host, addressOf(next))))
		// The drain is part of the protocol: it is for requests that picked the old
		// instance just before the change. It is seconds in production.
		const drain = 250 * time.Millisecond
		time.Sleep(drain)
		if err := old.Config.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		old = next
	}
	stop()
	load.Wait()
	old.Close()
	close(failures)
	failed := 0
	for f := range failures {
		if failed++; failed <= 5 {
			t.Error(f)
		}
	}
	t.Logf("%d requests during %d swaps, %d failed", asked.Load(), swaps, failed)
	if asked.Load() < swaps*workers {
		t.Errorf("only %d requests were made: too little load to prove anything", asked.Load())
	}
}

// work reads all it is sent and takes a moment, as an app does.
func work(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	time.Sleep(2 * time.Millisecond)
	fmt.Fprintf(w, "%s %d", r.Method, n)
}

func ask(client *http.Client, edge, host string, post bool) (failure string) {
	method, body, want := http.MethodGet, "", "GET 0"
	if post {
		method, body = http.MethodPost, strings.Repeat("x", 4096)
		want = "POST 4096"
	}
	req, err := http.NewRequest(method, "http://"+edge+"/", strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(text) != want {
		return fmt.Sprintf("%s: %d %q %v", method, resp.StatusCode, text, err)
	}
	return ""
}

func TestAPOSTThatFoundNoConnectionGoesToAnotherInstance(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	alive := httptest.NewServer(http.HandlerFunc(work))
	t.Cleanup(alive.Close)
	c.applied(c.put(serving("pair.test", freeAddress(t), addressOf(alive))))
	for range 50 {
		if failure := ask(http.DefaultClient, e.http, "pair.test", true); failure != "" {
			t.Fatal(failure)
		}
	}
}

func TestAPOSTThatReachedAnInstanceIsNeverSentAgain(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	var got atomic.Int64
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got.Add(1)
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
	}))
	t.Cleanup(broken.Close)
	c.applied(c.put(serving("broken.test", addressOf(broken), freeAddress(t))))
	for got.Load() == 0 {
		if failure := ask(http.DefaultClient, e.http, "broken.test", true); got.Load() > 0 && !strings.Contains(failure, "POST: 502") {
			t.Errorf("an app that breaks off gives %s", failure)
		}
	}
	if got.Load() != 1 {
		t.Errorf("the app saw the POST %d times", got.Load())
	}
}
