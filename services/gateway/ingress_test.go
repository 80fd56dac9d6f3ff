package gateway_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway"
	"github.com/slipway-paas/slipway/services/gateway/requests"
)

// ingresses are what the fake scheduler was asked to change.
func (f *fakeScheduler) ConfigureIngress(_ context.Context, req *schedulerv1.ConfigureIngressRequest) (*schedulerv1.ConfigureIngressResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(req.GetPrincipal(), req.GetId()); err != nil {
		return nil, err
	}
	if req.GetDrainSeconds().GetValue() > 3600 {
		return nil, problem.Validation([]problem.Field{{Field: "drain_seconds", Message: "is too long"}})
	}
	return &schedulerv1.ConfigureIngressResponse{Policy: &routingv1.RoutePolicy{
		Maintenance: req.GetMaintenance().GetValue(), Sticky: req.GetSticky() != nil, RequestTimeout: durationpb.New(time.Minute), NoCompression: true,
	}}, nil
}

func (f *fakeScheduler) GetIngress(_ context.Context, req *schedulerv1.GetIngressRequest) (*schedulerv1.GetIngressResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.find(req.GetPrincipal(), req.GetId())
	return &schedulerv1.GetIngressResponse{Policy: &routingv1.RoutePolicy{MaxRequestBytes: 10 << 20}}, err
}

// fakeRequests has one entry, and one more each time it is told.
type fakeRequests struct {
	mu     sync.Mutex
	of     string
	lines  int
	window time.Duration
	more   chan requests.Entry
}

func entryOf(path string) requests.Entry {
	return requests.Entry{Edge: "e1", AccessLogEntry: &edgev1.AccessLogEntry{
		Time: timestamppb.New(time.Date(2026, 5, 21, 10, 0, 0, 0, time.UTC)), Method: "GET", Path: path, Host: "my-app.test", Status: 200, RequestId: "r1",
		Protocol: "HTTP/1.1", Duration: durationpb.New(1500 * time.Microsecond), BytesOut: 5,
	}}
}

func (f *fakeRequests) Last(_ context.Context, org, deployment string, most int) ([]requests.Entry, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of, f.lines = org+"/"+deployment, most
	return []requests.Entry{entryOf("/first")}, 7, nil
}

func (f *fakeRequests) Follow(ctx context.Context, _, _ string, _ uint64, handle func([]requests.Entry) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-f.more:
			if err := handle([]requests.Entry{e}); err != nil {
				return err
			}
		}
	}
}

func (f *fakeRequests) Sum(_ context.Context, org, deployment string, window time.Duration) (requests.Sums, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of, f.window = org+"/"+deployment, window
	until := time.Date(2026, 5, 21, 10, 0, 0, 0, time.UTC)
	return requests.Sums{From: until.Add(-window), Until: until, Class: [5]uint64{0, 90, 0, 6, 4}, BytesIn: 1, BytesOut: 2, P50: 1.5, P90: 9, P99: 99}, nil
}

func withRequests(t *testing.T) (*stage, *fakeRequests, string) {
	t.Helper()
	f := &fakeRequests{more: make(chan requests.Entry)}
	s := begin(t, func(_ *gateway.Config, d *gateway.Deps) { d.Requests = f })
	return s, f, s.requested(t)
}

func TestTheIngressOfAnAppIsReadAndChangedByNameOrID(t *testing.T) {
	t.Parallel()
	s, _, id := withRequests(t)
	for _, name := range []string{"my-app", id} {
		got := s.call(t, "GET", "/api/v1/apps/"+name+"/ingress", "")
		want := `{"ingress":{"maintenance":false,"max_request_bytes":10485760,"request_timeout_seconds":0,"sticky":false,"drain_seconds":0,"compression":true}}` + "\n"
		if got.status != 200 || got.body != want {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		got = s.call(t, "PUT", "/api/v1/apps/"+name+"/ingress", `{"maintenance":true}`)
		want = `{"ingress":{"maintenance":true,"max_request_bytes":0,"request_timeout_seconds":60,"sticky":false,"drain_seconds":0,"compression":false}}` + "\n"
		if got.status != 200 || got.body != want {
			t.Errorf("%s is answered %d %s", name, got.status, got.body)
		}
	}
	for body, want := range map[string]int{`{"drain_seconds":4000}`: 422, `{"maintenance":"on"}`: 400, `{"colour":"red"}`: 400, `[]`: 400} {
		if got := s.call(t, "PUT", "/api/v1/apps/my-app/ingress", body); got.status != want {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
}

func TestWhatIsSaidOfAnAppsRequestsIsItsOrganizationsOnly(t *testing.T) {
	t.Parallel()
	s, f, id := withRequests(t)
	for _, name := range []string{"my-app", id, "nobody", uuid.NewString()} {
		for _, path := range []string{"/ingress", "/logs?source=router", "/metrics/requests"} {
			if got := s.call(t, "GET", "/api/v1/apps/"+name+path, "", "Authorization: Bearer "+strangerToken); got.status != 404 {
				t.Errorf("a stranger reads %s%s: %d %s", name, path, got.status, got.body)
			}
			if got := s.call(t, "GET", "/api/v1/apps/"+name+path, "", "Authorization: Bearer "+readerToken); got.status != 403 {
				t.Errorf("one without the scope reads %s%s: %d %s", name, path, got.status, got.body)
			}
		}
		if got := s.call(t, "PUT", "/api/v1/apps/"+name+"/ingress", `{"maintenance":true}`, "Authorization: Bearer "+strangerToken); got.status != 404 {
			t.Errorf("a stranger changes %s: %d %s", name, got.status, got.body)
		}
	}
	if f.of != "" {
		t.Errorf("the log of %s was read", f.of)
	}
}

func TestTheAccessLogComesAsItIsAskedFor(t *testing.T) {
	t.Parallel()
	s, f, id := withRequests(t)
	const path = "/api/v1/apps/my-app/logs?source=router"
	text := s.call(t, "GET", path+"&lines=7", "")
	if text.status != 200 || text.header.Get("Content-Type") != "text/plain; charset=utf-8" || !strings.HasPrefix(text.body, `2026-05-21T10:00:00.000Z router: method=GET path="/first"`) || strings.Count(text.body, "\n") != 1 {
		t.Errorf("as text: %d %v %q", text.status, text.header, text.body)
	}
	if f.of != "default/"+id || f.lines != 7 {
		t.Errorf("asked for %d lines of %s", f.lines, f.of)
	}
	for _, lines := range []reply{s.call(t, "GET", path, "", "Accept: application/x-ndjson"), s.call(t, "GET", path+"&format=json", "")} {
		e := lines.json(t)
		if lines.header.Get("Content-Type") != "application/x-ndjson; charset=utf-8" || e["path"] != "/first" || e["status"] != 200.0 || e["tls"] != nil || e["duration_ms"] != 1.5 {
			t.Errorf("as lines of JSON: %v %s", lines.header, lines.body)
		}
	}
	events := s.call(t, "GET", path, "", "Accept: text/event-stream")
	if events.header.Get("Content-Type") != "text/event-stream; charset=utf-8" || !strings.HasPrefix(events.body, "event: request\ndata: {") || !strings.HasSuffix(events.body, "}\n\n") {
		t.Errorf("as events: %v %q", events.header, events.body)
	}
	for query, field := range map[string]string{
		"": "source", "?source=app": "source", "?source=router&lines=0": "lines", "?source=router&lines=10001": "lines", "?source=router&follow=maybe": "follow",
		"?source=router&format=xml": "format", "?source=router&tail=1": "tail", "?source=router&source=router": "source",
	} {
		if got := s.call(t, "GET", "/api/v1/apps/my-app/logs"+query, ""); got.status != 422 || !strings.Contains(got.body, `"field":"`+field+`"`) {
			t.Errorf("%q: %d %s", query, got.status, got.body)
		}
	}
}

func TestAnAccessLogIsFollowedUntilTheGatewayStops(t *testing.T) {
	t.Parallel()
	s, f, _ := withRequests(t)
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/api/v1/apps/my-app/logs?source=router&follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+ownerToken)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() string {
		for lines.Scan() {
			if lines.Text() != "" {
				return lines.Text()
			}
		}
		return ""
	}
	if line := next(); !strings.Contains(line, `path="/first"`) {
		t.Fatalf("it begins with %q", line)
	}
	for _, path := range []string{"/second", "/third"} {
		f.more <- entryOf(path)
		if line := next(); !strings.Contains(line, path) {
			t.Fatalf("it goes on with %q", line)
		}
	}
	// Nothing happens, and it shows that it lives.
	if !lines.Scan() || lines.Text() != "" {
		t.Fatalf("while nothing happens it says %q", lines.Text())
	}
	s.stop()
	if line := next(); line != "" {
		t.Errorf("after the end it says %q", line)
	}
}

func TestRequestsAreSummedUpOverAWindow(t *testing.T) {
	t.Parallel()
	s, f, id := withRequests(t)
	got := s.call(t, "GET", "/api/v1/apps/my-app/metrics/requests?window=100s", "")
	want := `{"window":"1m40s","from":"2026-05-21T09:58:20Z","until":"2026-05-21T10:00:00Z","requests":100,"rate":1,"errors":{"client":6,"server":4},"error_rate":0.04,"p50_ms":1.5,"p90_ms":9,"p99_ms":99,"bytes_in":1,"bytes_out":2}` + "\n"
	if got.status != 200 || got.body != want {
		t.Errorf("%d %s", got.status, got.body)
	}
	if f.of != "default/"+id || f.window != 100*time.Second {
		t.Errorf("asked for %s of %s", f.window, f.of)
	}
	if s.call(t, "GET", "/api/v1/apps/my-app/metrics/requests", ""); f.window != 5*time.Minute {
		t.Errorf("the window is %s", f.window)
	}
	for _, window := range []string{"9s", "2h", "soon", "-5m"} {
		if got := s.call(t, "GET", "/api/v1/apps/my-app/metrics/requests?window="+window, ""); got.status != 422 {
			t.Errorf("%s: %d %s", window, got.status, got.body)
		}
	}
}
