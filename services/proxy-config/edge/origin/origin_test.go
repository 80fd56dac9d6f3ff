package origin_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/origin"
)

// app counts the connections that are open to it, and those there ever were.
type app struct {
	*httptest.Server
	open, ever atomic.Int64
}

func newApp(t *testing.T, handle http.HandlerFunc) *app {
	t.Helper()
	a := &app{Server: httptest.NewUnstartedServer(handle)}
	a.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			a.open.Add(1)
			a.ever.Add(1)
		case http.StateClosed, http.StateHijacked:
			a.open.Add(-1)
		}
	}
	a.Start()
	t.Cleanup(a.Close)
	return a
}

func newTransport() *origin.Transport {
	return &origin.Transport{
		Dial: (&net.Dialer{}).DialContext, Others: errorTransport{},
		AnswerTimeout: 10 * time.Second, IdleTimeout: time.Minute, IdlePerHost: 2,
	}
}

type errorTransport struct{}

var errOther = errors.New("not for this transport")

func (errorTransport) RoundTrip(*http.Request) (*http.Response, error) { return nil, errOther }

func ask(t *testing.T, transport http.RoundTripper, method, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

func TestConnectionsAreUsedAgainAndBoundedWhileIdle(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-gate
		}
		_, _ = io.WriteString(w, r.Method)
	})
	transport := newTransport()
	for _, method := range []string{"GET", "POST", "DELETE", "GET"} {
		if got, err := ask(t, transport, method, a.URL); err != nil || got != method {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n := a.ever.Load(); n != 1 {
		t.Errorf("four requests after each other took %d connections", n)
	}
	done := make(chan error, 5)
	for range 5 {
		go func() { _, err := ask(t, transport, "GET", a.URL+"/wait"); done <- err }()
	}
	eventually(t, "five at once", func() bool { return a.open.Load() == 5 })
	close(gate)
	for range 5 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "two stay", func() bool { return a.open.Load() == 2 })
	transport.CloseIdleConnections()
	eventually(t, "none stays", func() bool { return a.open.Load() == 0 })
}

func TestAnIdleConnectionIsClosedBeforeTheAppDoes(t *testing.T) {
	t.Parallel()
	a := newApp(t, func(http.ResponseWriter, *http.Request) {})
	transport := newTransport()
	transport.IdleTimeout = 100 * time.Millisecond
	if _, err := ask(t, transport, "GET", a.URL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is closed", func() bool { return a.open.Load() == 0 })
}

func TestAConnectionThatTheAppClosedGetsNoRequest(t *testing.T) {
	t.Parallel()
	a := newApp(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	transport := newTransport()
	// Without a second attempt: a POST is asked once.
	for n := range 20 {
		if _, err := ask(t, transport, "POST", a.URL); err != nil {
			t.Fatalf("request %d: %v", n, err)
		}
		a.CloseClientConnections()
		eventually(t, "it is closed", func() bool { return a.open.Load() == 0 })
	}
}

func TestAnAnswerThatIsNotReadToItsEndCostsItsConnection(t *testing.T) {
	t.Parallel()
	a := newApp(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 1<<20)) })
	transport := newTransport()
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := a.ever.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
	eventually(t, "both are closed", func() bool { return a.open.Load() == 0 })
}

func TestWaitingForAnAnswerEndsWithTheRequestAndInTime(t *testing.T) {
	t.Parallel()
	a := newApp(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	transport := newTransport()
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(reason) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transport.RoundTrip(req); !errors.Is(err, reason) {
		t.Errorf("a request that ended gets %v", err)
	}
	transport.AnswerTimeout = 50 * time.Millisecond
	var timeout net.Error
	if _, err := ask(t, transport, "GET", a.URL); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("an app that says nothing gives %v", err)
	}
	eventually(t, "no connection is left", func() bool { return a.open.Load() == 0 })
}

func TestBodiesAndSwitchesAreTheOthersTransport(t *testing.T) {
	t.Parallel()
	transport := newTransport()
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")) },
		func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
	} {
		req := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:1/", nil)
		req.RequestURI = ""
		change(req)
		if _, err := transport.RoundTrip(req); !errors.Is(err, errOther) {
			t.Errorf("%v: %v", req.Header, err)
		}
	}
}
