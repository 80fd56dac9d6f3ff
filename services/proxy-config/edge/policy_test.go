package edge_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

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
