package edge_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// ofAcme is a route of the deployment d1 of acme.
func ofAcme(r *routingv1.Route) *routingv1.Route {
	r.OrgId, r.DeploymentId = "acme", "d1"
	return r
}

func with(r *routingv1.Route, p *routingv1.RoutePolicy) *routingv1.Route {
	r.Policy = p
	return r
}

// accessLog is what edges say of d1's requests.
type accessLog struct {
	t         *testing.T
	mu        sync.Mutex
	entries   []*edgev1.AccessLogEntry
	summaries []*edgev1.RequestSummary
}

func (c *control) accessLog(t *testing.T) *accessLog {
	t.Helper()
	l := &accessLog{t: t}
	_, err := c.nc.Subscribe(subjects.AccessLog("acme", "d1"), func(m *nats.Msg) {
		batch := &edgev1.AccessLogBatch{}
		if err := proto.Unmarshal(m.Data, batch); err != nil || batch.GetEdgeId() == "" || batch.GetDropped() != 0 {
			t.Errorf("a batch is %v, %v", batch, err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.entries = append(l.entries, batch.GetEntries()...)
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.nc.Subscribe(subjects.RequestSummary("acme", "d1"), func(m *nats.Msg) {
		s := &edgev1.RequestSummary{}
		if err := proto.Unmarshal(m.Data, s); err != nil {
			t.Errorf("a summary: %v", err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.summaries = append(l.summaries, s)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return l
}

// of waits for the entry of the request with that id.
func (l *accessLog) of(id string) *edgev1.AccessLogEntry {
	l.t.Helper()
	var found *edgev1.AccessLogEntry
	eventually(l.t, "the request "+id+" is in the access log", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, e := range l.entries {
			if e.GetRequestId() == id {
				found = e
			}
		}
		return found != nil
	})
	return found
}

func TestTheAccessLogTellsOfEveryRequestForAnApp(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	log := c.accessLog(t)
	instance := app(t, "hello")
	c.applied(c.put(ofAcme(serving("shop.test", addressOf(instance)))))

	trace := "4bf92f3577b34da6a3ce929d0e0e4736"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+e.http+"/cart/%C3%A9?token=planted-secret", strings.NewReader("12345"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "Shop.test:80"
	for name, value := range map[string]string{
		"X-Request-Id": "r-1", "Traceparent": "00-" + trace + "-00f067aa0ba902b7-01", "User-Agent": "curl \xff/8",
		"Referer": "https://user:planted-secret@search.test/q?planted-secret", "Cookie": "planted-secret", "Authorization": "planted-secret",
	} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Body.Close() != nil {
		t.Fatal(err)
	}
	got := log.of("r-1")
	if strings.Contains(got.String(), "planted") {
		t.Errorf("the log holds a secret: %v", got)
	}
	took, service := got.GetDuration().AsDuration(), got.GetService().AsDuration()
	if took <= 0 || service <= 0 || service > took || got.GetConnect() == nil || time.Since(got.GetTime().AsTime()) > time.Minute {
		t.Errorf("times are %v", got)
	}
	got.Time, got.Duration, got.Service, got.Connect = nil, nil, nil, nil
	want := &edgev1.AccessLogEntry{
		Host: "shop.test", Method: "POST", Path: "/cart/%C3%A9", Protocol: "HTTP/1.1", Status: 200, BytesIn: 5, BytesOut: 5, InstanceId: "i0",
		Upstream: addressOf(instance), Client: "127.0.0.1", UserAgent: "curl \uFFFD/8", RefererHost: "search.test", RequestId: "r-1", TraceId: trace,
	}
	if !proto.Equal(got, want) {
		t.Errorf("logged\n%v, want\n%v", got, want)
	}
	// Of no app, so in nobody's log.
	e.get("unknown.test", "X-Request-Id", "r-unknown")

	instance.Close()
	if a := e.get("shop.test", "X-Request-Id", "r-2"); a.status != 503 {
		t.Errorf("without its instance it answers %d", a.status)
	}
	if got := log.of("r-2"); got.GetPage() != "app_unreachable" || got.GetStatus() != 503 || got.GetService() != nil || got.GetBytesOut() == 0 || got.GetInstanceId() != "i0" {
		t.Errorf("an instance that is gone is logged as %v", got)
	}
	c.applied(c.put(ofAcme(notServing("shop.test", routingv1.RouteState_ROUTE_STATE_STOPPED))))
	e.get("shop.test", "X-Request-Id", "r-3")
	if got := log.of("r-3"); got.GetPage() != "app_stopped" || got.GetUpstream() != "" || got.GetTraceId() == "" || got.GetConnect() != nil {
		t.Errorf("a stopped app is logged as %v", got)
	}
	conn, err := e.dialTLSAs("shop.test", "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: shop.test\r\nX-Request-Id: r-4\r\n\r\n")
	if got := log.of("r-4"); got.GetTls() != "1.3" {
		t.Errorf("over TLS it is logged as %v", got)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if len(log.entries) != 4 {
		t.Errorf("logged %v", log.entries)
	}
}

func TestRequestsAreSummedUpAndFiguresGoWithTheApp(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	log := c.accessLog(t)
	c.applied(c.put(ofAcme(serving("shop.test", addressOf(app(t, "hello"))))))
	for range 20 {
		e.get("shop.test")
	}
	c.applied(c.put(ofAcme(notServing("shop.test", routingv1.RouteState_ROUTE_STATE_DOWN))))
	e.get("shop.test")
	eventually(t, "the requests are summed up", func() bool {
		log.mu.Lock()
		defer log.mu.Unlock()
		var ok, bad, out uint64
		for _, s := range log.summaries {
			ok, bad, out = ok+s.GetSuccessful(), bad+s.GetServerErrors(), out+s.GetBytesOut()
		}
		return ok == 20 && bad == 1 && out > 100 && len(log.summaries[0].GetDurations()) > 0
	})
	figures := func() string {
		resp, err := http.Get("http://" + e.metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	text := figures()
	for _, want := range []string{
		`slipway_edge_app_requests_total{class="2xx",deployment="d1"} 20`, `slipway_edge_app_requests_total{class="5xx",deployment="d1"} 1`,
		`slipway_edge_app_request_duration_seconds_count{deployment="d1"} 21`, `slipway_edge_access_log_dropped_total{reason="rate"} 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	c.applied(c.remove("shop.test"))
	eventually(t, "the app's figures are gone with its route", func() bool { return !strings.Contains(figures(), `deployment="d1"`) })
}

func TestAnAppUnderMaintenanceSaysSoAndOthersServeOn(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	log := c.accessLog(t)
	address := addressOf(app(t, "hello"))
	c.put(serving("other.test", address))
	c.applied(c.put(with(ofAcme(serving("shop.test", address)), &routingv1.RoutePolicy{Maintenance: true})))

	a := e.get("shop.test", "Accept", "text/html", "X-Request-Id", "m-1")
	if a.status != 503 || a.header.Get("Retry-After") != "60" || !strings.Contains(a.body, "under maintenance") {
		t.Errorf("answers %d %v %s", a.status, a.header, a.body)
	}
	a = e.get("shop.test", "Accept", "application/json")
	if a.status != 503 || a.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.body, `"code":"app_maintenance"`) {
		t.Errorf("programs get %d %v %s", a.status, a.header, a.body)
	}
	if got := log.of("m-1"); got.GetPage() != "app_maintenance" || got.GetUpstream() != "" {
		t.Errorf("it is logged as %v", got)
	}
	if a := e.get("other.test"); a.body != "hello" {
		t.Errorf("another app answers %d %s", a.status, a.body)
	}
	c.applied(c.put(ofAcme(serving("shop.test", address))))
	if a := e.get("shop.test"); a.body != "hello" {
		t.Errorf("after maintenance it answers %d %s", a.status, a.body)
	}
}

// eater is an app that reads whole bodies and counts them.
func eater(t *testing.T) (address string, eaten *atomic.Int64) {
	t.Helper()
	eaten = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buffer := make([]byte, 1024)
		for {
			n, err := r.Body.Read(buffer)
			eaten.Add(int64(n))
			if err == io.EOF {
				_, _ = io.WriteString(w, "eaten")
				return
			}
			if err != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return addressOf(s), eaten
}

func (e *edgeProcess) post(host string, body io.Reader) answer {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodPost, "http://"+e.http+"/", body)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Host = host
	// Each on a connection of its own: one whose body was not read is closed.
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func TestABodyIsNoLargerThanTheAppTakes(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	c := newControl(t)
	e := c.edge(t.TempDir(), "--max-request-bytes", fmt.Sprint(2*limit))
	address, eaten := eater(t)
	c.put(serving("default.test", address))
	c.applied(c.put(with(serving("shop.test", address), &routingv1.RoutePolicy{MaxRequestBytes: limit})))

	body := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	// A reader that is none of the known ones has no length: its body goes in chunks.
	chunked := func(n int) io.Reader { return io.MultiReader(bytes.NewReader(body(n))) }
	for what, ok := range map[string]io.Reader{"with its length": bytes.NewReader(body(limit)), "in chunks": chunked(limit)} {
		if a := e.post("shop.test", ok); a.status != 200 || a.body != "eaten" {
			t.Errorf("a body as large as allowed, %s: %d %s", what, a.status, a.body)
		}
	}
	eaten.Store(0)
	if a := e.post("shop.test", bytes.NewReader(body(limit+1))); a.status != 413 || !strings.Contains(a.body, "too large") || eaten.Load() != 0 {
		t.Errorf("one byte more: %d %s; the app saw %d bytes", a.status, a.body, eaten.Load())
	}
	for _, more := range []int{1, 100 << 10} {
		// One of its own: the app may be told late that the one before was broken off.
		address, eaten := eater(t)
		c.applied(c.put(with(serving("shop.test", address), &routingv1.RoutePolicy{MaxRequestBytes: limit})))
		if a := e.post("shop.test", chunked(limit+more)); a.status != 413 || eaten.Load() > limit {
			t.Errorf("%d bytes more in chunks: %d; the app saw %d bytes", more, a.status, eaten.Load())
		}
	}
	if a := e.post("default.test", bytes.NewReader(body(2*limit))); a.status != 200 {
		t.Errorf("as much as the platform allows: %d %s", a.status, a.body)
	}
	if a := e.post("default.test", bytes.NewReader(body(2*limit+1))); a.status != 413 {
		t.Errorf("more than the platform allows: %d %s", a.status, a.body)
	}
}

func TestAnAppHasAsLongToBeginItsAnswerAsItsOwnerSays(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir(), "--request-timeout", "1s")
	log := c.accessLog(t)
	begins := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		time.Sleep(1500 * time.Millisecond)
		_, _ = io.WriteString(w, "in the end")
	}))
	t.Cleanup(begins.Close)
	never := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-never:
		}
	}))
	t.Cleanup(func() { close(never); hangs.Close() })
	policy := &routingv1.RoutePolicy{RequestTimeout: durationpb.New(300 * time.Millisecond)}
	c.put(with(ofAcme(serving("hangs.test", addressOf(hangs))), policy))
	c.put(serving("default.test", addressOf(hangs)))
	c.applied(c.put(with(serving("begins.test", addressOf(begins)), policy)))

	asked := time.Now()
	if a := e.get("hangs.test", "X-Request-Id", "t-1"); a.status != 504 || !strings.Contains(a.body, "too long") || time.Since(asked) > 900*time.Millisecond {
		t.Errorf("one that hangs: %d after %s: %s", a.status, time.Since(asked), a.body)
	}
	if got := log.of("t-1"); got.GetPage() != "app_timeout" || got.GetDuration().AsDuration() < 300*time.Millisecond {
		t.Errorf("it is logged as %v", got)
	}
	if a := e.get("begins.test"); a.status != 200 || a.body != "in the end" {
		t.Errorf("one that began in time and takes longer: %d %s", a.status, a.body)
	}
	if a := e.get("default.test"); a.status != 504 {
		t.Errorf("one that says nothing has the platform's time: %d %s", a.status, a.body)
	}
}

func TestAnswersAreCompressedForWhoTakesIt(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	plain := c.edge(t.TempDir(), "--compression=false")
	text := strings.Repeat("a long answer ", 500)
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("X-Want"))
		if r.Header.Get("X-Compressed") != "" {
			w.Header().Set("Content-Encoding", "br")
		}
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(instance.Close)
	c.put(serving("shop.test", addressOf(instance)))
	revision := c.put(with(serving("as-it-is.test", addressOf(instance)), &routingv1.RoutePolicy{NoCompression: true}))
	for _, edge := range []*edgeProcess{e, plain} {
		eventually(t, "both edges have the routes", func() bool { return edge.get("as-it-is.test").status == 200 })
	}
	c.applied(revision)

	for _, tc := range []struct {
		edge                     *edgeProcess
		host, accept, kind, more string
		encoding                 string
	}{
		{e, "shop.test", "gzip", "text/html; charset=utf-8", "", "gzip"},
		{e, "shop.test", "gzip, br, zstd", "application/json", "", "zstd"},
		{e, "shop.test", "identity", "text/html", "", ""},
		{e, "shop.test", "gzip", "image/jpeg", "", ""},
		{e, "shop.test", "gzip", "text/event-stream", "", ""},
		{e, "shop.test", "gzip", "text/html", "X-Compressed", "br"},
		{e, "as-it-is.test", "gzip", "text/html", "", ""},
		{plain, "shop.test", "gzip", "text/html", "", ""},
	} {
		headers := []string{"Accept-Encoding", tc.accept, "X-Want", tc.kind}
		if tc.more != "" {
			headers = append(headers, tc.more, "yes")
		}
		a := tc.edge.get(tc.host, headers...)
		if got := a.header.Get("Content-Encoding"); got != tc.encoding {
			t.Errorf("%s as %s for %s %s: encoded as %q, want %q", tc.host, tc.kind, tc.accept, tc.more, got, tc.encoding)
			continue
		}
		body := a.body
		switch tc.encoding {
		case "gzip":
			r, err := gzip.NewReader(strings.NewReader(a.body))
			if err != nil {
				t.Fatal(err)
			}
			unzipped, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			body = string(unzipped)
		case "zstd":
			r, err := zstd.NewReader(nil)
			if err != nil {
				t.Fatal(err)
			}
			unzipped, err := r.DecodeAll([]byte(a.body), nil)
			r.Close()
			if err != nil {
				t.Fatal(err)
			}
			body = string(unzipped)
		}
		if body != text {
			t.Errorf("%s as %s for %s: the text arrives as %.40q…", tc.host, tc.kind, tc.accept, body)
		}
	}
}

func TestCloudflareSaysWhoAskedAndNobodyElseDoes(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	address, seen := mirror(t)
	// This machine stands for Cloudflare's by the file, and for a stranger without it.
	file := t.TempDir() + "/ranges.txt"
	write(t, file, "# of the test\n127.0.0.0/8\n")
	behind := c.edge(t.TempDir(), "--trusted-proxies", "cloudflare,10.0.0.0/8", "--cloudflare-ranges", file)
	direct := c.edge(t.TempDir(), "--trusted-proxies", "cloudflare")
	lb := c.edge(t.TempDir(), "--trusted-proxies", "127.0.0.0/8")
	c.put(serving("who.test", address))
	for _, edge := range []*edgeProcess{behind, direct, lb} {
		eventually(t, "all edges have the route", func() bool { return edge.get("who.test").status == 200 && <-seen != nil })
	}
	for what, tc := range map[string]struct {
		edge         *edgeProcess
		said         []string
		client, kept string
	}{
		"Cloudflare":              {behind, []string{"CF-Connecting-IP", "7.7.7.7", "X-Forwarded-For", "6.6.6.6, 7.7.7.7"}, "7.7.7.7", "7.7.7.7"},
		"Cloudflare, by IPv6":     {behind, []string{"CF-Connecting-IP", "2001:db8::7"}, "2001:db8::7", "2001:db8::7"},
		"Cloudflare, in nonsense": {behind, []string{"CF-Connecting-IP", "localhost", "X-Forwarded-For", "6.6.6.6, 7.7.7.7"}, "7.7.7.7", ""},
		"a stranger":              {direct, []string{"CF-Connecting-IP", "7.7.7.7", "X-Forwarded-For", "7.7.7.7"}, "127.0.0.1", ""},
		"another proxy":           {lb, []string{"CF-Connecting-IP", "6.6.6.6", "X-Forwarded-For", "6.6.6.6, 8.8.8.8"}, "8.8.8.8", ""},
	} {
		tc.edge.get("who.test", tc.said...)
		got := <-seen
		if got.Get("X-Real-Ip") != tc.client || got.Get("Cf-Connecting-Ip") != tc.kept {
			t.Errorf("%s: the app is told X-Real-Ip %q, CF-Connecting-IP %q", what, got.Get("X-Real-Ip"), got.Get("Cf-Connecting-Ip"))
		}
	}
}

func TestALoadBalancerSaysWhoAskedByThePROXYProtocol(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	address, seen := mirror(t)
	from := c.edge(t.TempDir(), "--proxy-protocol-from", "127.0.0.0/8")
	notFrom := c.edge(t.TempDir(), "--proxy-protocol-from", "10.0.0.0/8")
	c.put(serving("who.test", address))
	for _, edge := range []*edgeProcess{from, notFrom} {
		eventually(t, "both edges have the route", func() bool { return edge.get("who.test").status == 200 && <-seen != nil })
	}
	ask := func(edge *edgeProcess) int {
		conn, err := net.Dial("tcp", edge.http)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "PROXY TCP4 7.7.7.7 127.0.0.1 4444 80\r\nGET / HTTP/1.1\r\nHost: who.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if status := ask(from); status != 200 {
		t.Fatalf("through the load balancer: %d", status)
	}
	if got := <-seen; got.Get("X-Real-Ip") != "7.7.7.7" || got.Get("X-Forwarded-For") != "7.7.7.7" {
		t.Errorf("the app is told %v", got)
	}
	if status := ask(notFrom); status != 400 {
		t.Errorf("a stranger with such a header: %d, want 400", status)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
