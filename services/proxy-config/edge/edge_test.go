package edge_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

func TestARouteAppearsChangesAndGoesWithoutAReload(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	const host = "shop.apps.test"
	one, two := app(t, "one"), app(t, "two")

	if got := e.get(host); got.status != 404 || !strings.Contains(got.body, host) {
		t.Fatalf("an unknown host gets %d:\n%s", got.status, got.body)
	}
	c.applied(c.put(notServing(host, routingv1.RouteState_ROUTE_STATE_STARTING)))
	if got := e.get(host); got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Fatalf("a starting app gets %d, %v", got.status, got.header)
	}
	c.applied(c.put(serving(host, addressOf(one))))
	if got := e.get(host); got.status != 200 || got.body != "one" {
		t.Fatalf("the app answers %d %q", got.status, got.body)
	}
	c.applied(c.put(serving(host, addressOf(two))))
	if got := e.get(host); got.body != "two" {
		t.Fatalf("after the change %q answers", got.body)
	}
	if got := e.get(strings.ToUpper(host) + ".:8000"); got.body != "two" {
		t.Fatalf("the host in capitals, with dot and port, gets %d", got.status)
	}
	c.applied(c.remove(host))
	if got := e.get(host); got.status != 404 {
		t.Fatalf("a removed host gets %d", got.status)
	}
}

func TestAppsThatCannotServeSayWhyInTheFormAskedFor(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	c.put(notServing("starting.test", routingv1.RouteState_ROUTE_STATE_STARTING))
	c.put(notServing("down.test", routingv1.RouteState_ROUTE_STATE_DOWN))
	c.put(notServing("stopped.test", routingv1.RouteState_ROUTE_STATE_STOPPED))
	c.applied(c.put(serving("refused.test", freeAddress(t))))

	for host, want := range map[string]struct {
		status int
		code   string
	}{
		"unknown.test":  {404, "unknown_host"},
		"starting.test": {503, "app_starting"},
		"down.test":     {503, "app_down"},
		"stopped.test":  {503, "app_stopped"},
		"refused.test":  {503, "app_unreachable"},
	} {
		page := e.get(host, "Accept", "text/html")
		if page.status != want.status || page.header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(page.body, want.code) {
			t.Errorf("%s as HTML: %d %s", host, page.status, page.header.Get("Content-Type"))
		}
		problem := e.get(host, "Accept", "application/json")
		var members struct {
			Type, Title, Detail, Error, Message, Code string
			Status                                    int
		}
		if err := json.Unmarshal([]byte(problem.body), &members); err != nil {
			t.Errorf("%s as JSON: %v in %s", host, err, problem.body)
		}
		if problem.header.Get("Content-Type") != "application/problem+json" || members.Status != want.status || members.Code != want.code ||
			members.Type == "" || members.Title == "" || members.Detail == "" || members.Error != members.Message {
			t.Errorf("%s as JSON: %s", host, problem.body)
		}
		if retry := page.header.Get("Retry-After"); (retry != "") != (want.status == 503) || retry != problem.header.Get("Retry-After") {
			t.Errorf("%s: Retry-After %q", host, retry)
		}
		if page.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: the page has no request id", host)
		}
	}
}

func TestTheEdgeSaysWhichRevisionItServesAndWhenItLeaves(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	c.put(serving("a.test", "127.0.0.1:1"))
	last := c.remove("a.test")
	e := c.edge(t.TempDir(), "--edge-id", "edge-one")
	c.heard("a deletion counts as applied at start", func(a *routingv1.EdgeApplied) bool {
		return a.GetEdgeId() == "edge-one" && a.GetRevision() == last && !a.GetClosing()
	})
	next := c.put(serving("b.test", "127.0.0.1:1"))
	c.applied(next)
	if code := e.terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	c.heard("closing", func(a *routingv1.EdgeApplied) bool { return a.GetClosing() && a.GetRevision() == next })
	if log := e.log.String(); strings.Contains(strings.ToLower(log), "permissions violation") {
		t.Errorf("the edge's key may not do what the edge does:\n%s", log)
	}
}

func TestTheLastTableServesWhileTheControlPlaneIsAway(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	dir := t.TempDir()
	first := c.edge(dir)
	one, two := app(t, "one"), app(t, "two")
	c.put(serving("gone.test", addressOf(one)))
	c.applied(c.put(serving("shop.test", addressOf(one))))

	c.stop()
	if got := first.get("shop.test"); got.body != "one" {
		t.Fatalf("with NATS away the app answers %d %q", got.status, got.body)
	}
	if code := first.terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	second := c.edge(dir)
	if got := second.get("shop.test"); got.body != "one" {
		t.Fatalf("after a restart with NATS away the app answers %d %q", got.status, got.body)
	}

	c.start()
	c.remove("gone.test")
	c.applied(c.put(serving("shop.test", addressOf(two))))
	if got := second.get("shop.test"); got.body != "two" {
		t.Fatalf("with NATS back the app answers %d %q", got.status, got.body)
	}
	if got := second.get("gone.test"); got.status != 404 {
		t.Fatalf("a host removed meanwhile gets %d", got.status)
	}
}

func TestARebuiltBucketIsNoticedBehindALivingConnection(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	for range 5 {
		c.put(serving("old.test", "127.0.0.1:1"))
	}
	c.applied(c.put(serving("both.test", "127.0.0.1:1")))
	c.rebuild()
	c.put(serving("both.test", addressOf(app(t, "rebuilt"))))
	eventually(t, "the rebuilt table is served", func() bool {
		return e.get("old.test").status == 404 && e.get("both.test").body == "rebuilt"
	})
}

func TestAWebSocketSurvivesEveryRouteChange(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	echo := httptest.NewServer(http.HandlerFunc(echoUpgraded))
	t.Cleanup(echo.Close)
	c.applied(c.put(serving("ws.test", addressOf(echo))))

	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v %v", resp, err)
	}
	say := func(line string) {
		t.Helper()
		if _, err := io.WriteString(conn, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := in.ReadString('\n'); err != nil || got != line+"\n" {
			t.Fatalf("echo of %q: %q, %v", line, got, err)
		}
	}
	say("before")
	var last uint64
	for i := range 200 {
		last = c.put(serving(fmt.Sprintf("other-%d.test", i), "127.0.0.1:1"))
	}
	c.applied(last)
	say("after 200 changes of other hosts")
	c.applied(c.put(serving("ws.test", addressOf(app(t, "next release")))))
	say("after a change of its own host")

	asked := time.Now()
	if code := e.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(asked); took > 5*time.Second {
		t.Errorf("an open WebSocket held the edge up for %s", took)
	}
}

func echoUpgraded(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\n")
	_, _ = io.Copy(conn, rw)
}

func TestAppsSeeWhoAskedAndClientsSeeTheRequestID(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	seen := make(chan http.Header, 1)
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		h.Set("Host", r.Host)
		seen <- h
	}))
	t.Cleanup(mirror.Close)
	c.applied(c.put(serving("who.test", addressOf(mirror))))

	got := e.get("who.test", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https")
	h := <-seen
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "who.test", "Host": "who.test",
	} {
		if h.Get(name) != want {
			t.Errorf("%s = %q, want %q", name, h.Get(name), want)
		}
	}
	if len(h.Get("Traceparent")) != 55 || h.Get("X-Request-Id") == "" || got.header.Get("X-Request-Id") != h.Get("X-Request-Id") {
		t.Errorf("traceparent %q, request id %q, answered %q", h.Get("Traceparent"), h.Get("X-Request-Id"), got.header.Get("X-Request-Id"))
	}

	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	e.get("who.test", "X-Request-Id", "mine-1", "Traceparent", trace)
	if h = <-seen; h.Get("Traceparent") != trace || h.Get("X-Request-Id") != "mine-1" {
		t.Errorf("a client's own ids arrive as %q, %q", h.Get("Traceparent"), h.Get("X-Request-Id"))
	}
}

func TestHTTPSServesHostsOfTheTableOnly(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	c.applied(c.put(serving("safe.test", addressOf(app(t, "safe")))))

	conn, err := e.dialTLS("safe.test")
	if err != nil {
		t.Fatalf("a host of the table: %v", err)
	}
	defer conn.Close()
	if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname("safe.test"); err != nil {
		t.Error(err)
	}
	if proto := conn.ConnectionState().NegotiatedProtocol; proto != "h2" {
		t.Errorf("negotiated %q", proto)
	}
	other, err := e.dialTLS("nobody.test")
	if err != nil {
		t.Fatalf("a host that is not in the table: %v", err)
	}
	defer other.Close()
	if other.ConnectionState().PeerCertificates[0].VerifyHostname("nobody.test") == nil {
		t.Error("a certificate was made for a host that is not in the table")
	}
}

func TestNothingIsLeftOutsideTheDataDirectory(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	dir := t.TempDir()
	e := c.edge(dir)
	c.applied(c.put(serving("a.test", addressOf(app(t, "a")))))
	if conn, err := e.dialTLS("a.test"); err != nil {
		t.Fatal(err)
	} else if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if code := e.terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if _, err := os.Stat(filepath.Join(dir, "home")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the home directory was used: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "routes.pb")); err != nil {
		t.Errorf("the table is not on disk: %v", err)
	}
}

func TestReadinessAndFiguresAreOnTheMetricsAddress(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	c.applied(c.put(serving("a.test", addressOf(app(t, "a")))))
	e.get("nobody.test")

	fetch := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + e.metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if status, body := fetch("/ready"); status != 200 || !strings.Contains(body, `"routes":1`) {
		t.Errorf("/ready: %d %s", status, body)
	}
	_, metrics := fetch("/metrics")
	for _, line := range []string{
		"slipway_edge_routes 1", "slipway_edge_connected 1", `slipway_edge_pages_total{code="unknown_host"} 1`, "caddy_http_requests_total",
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

func TestARequestInFlightEndsBeforeTheEdgeDoes(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	arrived, release := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		_, _ = io.WriteString(w, "finished")
	}))
	t.Cleanup(slow.Close)
	c.applied(c.put(serving("slow.test", addressOf(slow))))

	body := make(chan string, 1)
	go func() {
		req, _ := http.NewRequest(http.MethodPost, "http://"+e.http+"/", strings.NewReader("x"))
		req.Host = "slow.test"
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			body <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		body <- string(text)
	}()
	<-arrived
	e.signal()
	eventually(t, "no new connection is taken", func() bool {
		conn, err := net.DialTimeout("tcp", e.http, time.Second)
		if err != nil {
			return true
		}
		return conn.Close() != nil
	})
	close(release)
	if got := <-body; got != "finished" {
		t.Errorf("the request in flight got %q", got)
	}
	if code := e.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
