package health

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
)

// FuzzEveryTargetIsProbed: whatever the view says of a target, what is sent is one GET
// of one path, and the prober neither spins nor holds its slot for ever.
func FuzzEveryTargetIsProbed(f *testing.F) {
	for _, target := range []*healthv1.Target{
		target(),
		{Address: "[::1]:65536"},
		{Address: "10.0.0.1:80", Host: "a\r\nX-Injected: 1", HealthCheck: &deploymentv1.HealthCheck{Path: "/a?b=c#d"}},
		{Address: "10.0.0.1:80", HealthCheck: &deploymentv1.HealthCheck{Path: "//evil.test/%2e%2e", Interval: durationpb.New(1), Timeout: durationpb.New(-1)}},
		{Address: "10.0.0.1:80", Healthy: true, HealthCheck: &deploymentv1.HealthCheck{Path: "http://evil.test/",
			Interval: &durationpb.Duration{Seconds: 1 << 62, Nanos: -1}, Timeout: &durationpb.Duration{Seconds: 1 << 62}, UnhealthyAfter: 1<<32 - 1}},
	} {
		data, err := proto.Marshal(target)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		target := &healthv1.Target{}
		if proto.Unmarshal(data, target) != nil {
			return
		}
		if request, err := probeRequest(target); err == nil {
			sentOnce(t, request)
		}
		s := newStage(1)
		tr := newTracker(target)
		if timeout := s.timeout(target); timeout <= 0 || timeout > maxTimeout {
			t.Fatalf("a probe may take %s", timeout)
		}
		at := time.Unix(0, 0)
		for _, ok := range []bool{false, true, true, false, false, false, true} {
			if due, change := tr.observe(outcome{ok: ok, at: at}); change {
				tr.recorded(due, tr.base+1)
			}
			if wait := tr.next(s.interval(target), 1); wait < firstDelay || wait > 2*maxInterval {
				t.Fatalf("the next probe comes after %s", wait)
			}
			if wait := tr.first(s.interval(target), 1); wait < 0 || wait > time.Second {
				t.Fatalf("the first probe comes after %s", wait)
			}
			at = at.Add(time.Second)
		}
	})
}

// sentOnce checks what reaches the app: one request, without headers of another's making.
func sentOnce(t *testing.T, request *http.Request) {
	t.Helper()
	var wire bytes.Buffer
	if err := request.Write(&wire); err != nil {
		return
	}
	reader := bufio.NewReader(&wire)
	got, err := http.ReadRequest(reader)
	if err != nil || got.Method != http.MethodGet || got.URL.Host != "" || got.Header.Get("X-Injected") != "" {
		t.Fatalf("the app was sent %+v, %v", got, err)
	}
	if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Fatal("the app was sent more than one request")
	}
}
