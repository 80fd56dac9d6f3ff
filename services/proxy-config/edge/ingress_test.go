package edge_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

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
