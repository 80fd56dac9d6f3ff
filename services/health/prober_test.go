package health

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
)

func app(t *testing.T, handle http.HandlerFunc) *healthv1.Target {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return &healthv1.Target{
		Address: server.Listener.Addr().String(), Host: "shop.apps.localhost",
		HealthCheck: &deploymentv1.HealthCheck{Path: "/up?deep=1"},
	}
}

func TestBelow500IsHealthy(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]bool{200: true, 204: true, 302: true, 404: true, 499: true, 500: false, 503: false} {
		ok, reason := newHTTPProber().probe(t.Context(), app(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
		}), 5*time.Second)
		if ok != want {
			t.Errorf("status %d: healthy %v, want %v", status, ok, want)
		}
		if !ok && reason != fmt.Sprintf("GET /up answered %d", status) {
			t.Errorf("status %d: reason %q", status, reason)
		}
	}
}

func TestTheAppSeesItsOwnHostAndPathOnAFreshConnection(t *testing.T) {
	t.Parallel()
	var seen atomic.Value
	remotes := make(chan string, 2)
	on := app(t, func(_ http.ResponseWriter, r *http.Request) {
		seen.Store(r.Host + r.URL.RequestURI())
		remotes <- r.RemoteAddr
	})
	prober := newHTTPProber()
	prober.probe(t.Context(), on, 5*time.Second)
	prober.probe(t.Context(), on, 5*time.Second)
	if got := seen.Load(); got != "shop.apps.localhost/up?deep=1" {
		t.Errorf("the app saw %v", got)
	}
	if first, second := <-remotes, <-remotes; first == second {
		t.Error("both probes used one connection: a half-dead app would look well")
	}
}

func TestARedirectIsAnAnswerAndIsNotFollowed(t *testing.T) {
	t.Parallel()
	var asked atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	defer elsewhere.Close()
	ok, _ := newHTTPProber().probe(t.Context(), app(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusFound)
	}), 5*time.Second)
	if !ok || asked.Load() {
		t.Errorf("healthy %v, redirect followed %v; want true, false", ok, asked.Load())
	}
}

func TestOnlyAddressesAreAsked(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "localhost:80", "example.com:80", "127.0.0.1", "127.0.0.1:80@10.0.0.1:80"} {
		ok, reason := newHTTPProber().probe(t.Context(), &healthv1.Target{Address: address}, time.Second)
		if ok || !strings.Contains(reason, "is not an IP address and port") {
			t.Errorf("%q: healthy %v, reason %q", address, ok, reason)
		}
	}
	to := app(t, func(http.ResponseWriter, *http.Request) {})
	for _, path := range []string{"http://10.0.0.1/", "up", "/a b\n"} {
		to.HealthCheck.Path = path
		if ok, reason := newHTTPProber().probe(t.Context(), to, time.Second); ok || !strings.Contains(reason, "is not a path") {
			t.Errorf("path %q: healthy %v, reason %q", path, ok, reason)
		}
	}
}

func TestWhyAnAppIsNotHealthyIsSaidInWords(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	speaks := func(answer string) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				buffer := make([]byte, 1024)
				_, _ = conn.Read(buffer)
				_, _ = io.WriteString(conn, answer)
				conn.Close()
			}
		}()
		return listener.Addr().String()
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	for address, want := range map[string]string{
		nobody:                       "nothing listens on port",
		silent.Addr().String():       "no answer on port",
		speaks(""):                   "was closed without an answer",
		speaks("220 smtp ready\r\n"): "does not speak HTTP",
	} {
		ok, reason := newHTTPProber().probe(t.Context(), &healthv1.Target{Address: address}, 200*time.Millisecond)
		if ok || !strings.Contains(reason, want) {
			t.Errorf("healthy %v, reason %q, want %q", ok, reason, want)
		}
	}
}

func TestAnEndlessBodyEndsTheProbeAllTheSame(t *testing.T) {
	t.Parallel()
	on := app(t, func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 4096)
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	began := time.Now()
	if ok, reason := newHTTPProber().probe(t.Context(), on, 5*time.Second); !ok {
		t.Errorf("not healthy: %s", reason)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}
