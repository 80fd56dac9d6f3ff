package requests_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/requests"
)

type platform struct {
	t  *testing.T
	js jetstream.JetStream
	// edge may publish what edges may.
	edge jetstream.JetStream
	now  time.Time
}

func start(t *testing.T) *platform {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	keys, err := natsconn.EnsureKeys(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: filepath.Join(dir, "store"), Keys: keys, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	connect := func(role natsconn.Role) jetstream.JetStream {
		nc, err := natsconn.Connect(natsconn.Config{URL: server.URL(), SeedFile: server.SeedFile(role), Name: t.Name(), Log: log})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		return js
	}
	p := &platform{t: t, js: connect(natsconn.RolePlatform), edge: connect(natsconn.RoleEdge), now: time.Now()}
	if err := natsconn.Provision(t.Context(), p.js, 1); err != nil {
		t.Fatal(err)
	}
	return p
}

// says publishes as edges do and waits until the stream has it.
func (p *platform) says(stream, subject string, m proto.Message) {
	p.t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	before := p.last(stream)
	if err := p.edge.Conn().Publish(subject, data); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); p.last(stream) == before; {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s never has what an edge said on %s", stream, subject)
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *platform) last(stream string) uint64 {
	p.t.Helper()
	s, err := p.js.Stream(p.t.Context(), stream)
	if err != nil {
		p.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

// logs has the edge log the paths, a second apart from so many seconds ago on.
func (p *platform) logs(edge, deployment string, ago int, paths ...string) {
	p.t.Helper()
	b := &edgev1.AccessLogBatch{EdgeId: edge}
	for n, path := range paths {
		b.Entries = append(b.Entries, &edgev1.AccessLogEntry{Path: path, Time: timestamppb.New(p.now.Add(time.Duration(n-ago) * time.Second))})
	}
	p.says(subjects.StreamAccessLogs, subjects.AccessLog("acme", deployment), b)
}

func paths(entries []requests.Entry) (all []string) {
	for _, e := range entries {
		all = append(all, e.GetPath())
	}
	return all
}

func TestALogIsReadInOrderOverAllEdgesAndGoesOn(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p := start(t)
	reader := requests.NewJetStream(p.js, time.Now)
	if entries, last, err := reader.Last(ctx, "acme", "d1", 10); err != nil || len(entries) != 0 || last != 0 {
		t.Fatalf("an empty log is %v, %d, %v", entries, last, err)
	}
	p.logs("e1", "d1", 60, "/1", "/3")
	p.logs("e1", "another", 60, "/not-mine")
	p.logs("e2", "d1", 59, "/2", "/4", "/5")
	entries, last, err := reader.Last(ctx, "acme", "d1", 4)
	// Between entries of one time either may come first.
	if got := paths(entries); err != nil || len(got) != 4 || got[3] != "/5" || slices.Contains(got, "/1") && got[0] != "/1" || entries[3].Edge != "e2" {
		t.Fatalf("the last four are %v, %v", got, err)
	}
	if others, _, err := reader.Last(ctx, "others", "d1", 4); err != nil || len(others) != 0 {
		t.Fatalf("another org sees %v, %v", paths(others), err)
	}

	following, stop := context.WithCancel(ctx)
	defer stop()
	came := make(chan string, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- reader.Follow(following, "acme", "d1", last, func(batch []requests.Entry) error {
			for _, path := range paths(batch) {
				came <- path
			}
			return nil
		})
	}()
	p.logs("e1", "another", 0, "/not-mine")
	p.logs("e1", "d1", 0, "/6")
	if path := <-came; path != "/6" {
		t.Errorf("what comes first is %s", path)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestSumsAreOverAllEdgesAndTheWindow(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p := start(t)
	reader := requests.NewJetStream(p.js, time.Now)
	if sums, err := reader.Sum(ctx, "acme", "d1", time.Minute); err != nil || sums.Requests() != 0 || sums.P99 != 0 {
		t.Fatalf("of no requests %v, %v", sums, err)
	}
	for edge, from := range map[string]int{"e1": 1, "e2": 501} {
		sketch, err := ddsketch.LogCollapsingLowestDenseDDSketch(0.01, 1024)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 500 {
			if err := sketch.Add(float64(from + n)); err != nil {
				t.Fatal(err)
			}
		}
		data, err := proto.Marshal(sketch.ToProto())
		if err != nil {
			t.Fatal(err)
		}
		p.says(subjects.StreamRequestSummaries, subjects.RequestSummary("acme", "d1"),
			&edgev1.RequestSummary{EdgeId: edge, Successful: 490, ClientErrors: 7, ServerErrors: 3, BytesIn: 10, BytesOut: 20, Durations: data})
	}
	// Connections that were upgraded have no duration.
	p.says(subjects.StreamRequestSummaries, subjects.RequestSummary("acme", "d1"), &edgev1.RequestSummary{EdgeId: "e1", Informational: 2})
	sums, err := reader.Sum(ctx, "acme", "d1", time.Minute)
	if err != nil || sums.Requests() != 1002 || sums.Class != [5]uint64{2, 980, 0, 14, 6} || sums.BytesIn != 20 || sums.BytesOut != 40 {
		t.Fatalf("the sums are %+v, %v", sums, err)
	}
	for want, got := range map[float64]float64{500: sums.P50, 900: sums.P90, 990: sums.P99} {
		if math.Abs(got-want) > want*0.011 {
			t.Errorf("a quantile is %v, want %v within 1 %%", got, want)
		}
	}
	later := requests.NewJetStream(p.js, func() time.Time { return time.Now().Add(2 * time.Minute) })
	if sums, err := later.Sum(ctx, "acme", "d1", time.Minute); err != nil || sums.Requests() != 0 {
		t.Errorf("two minutes later the last minute has %v, %v", sums.Requests(), err)
	}
}

func TestALineIsReadAsOneWhateverAClientWrites(t *testing.T) {
	t.Parallel()
	at := timestamppb.New(time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.UTC))
	plain := requests.Entry{Edge: "e1", AccessLogEntry: &edgev1.AccessLogEntry{
		Time: at, Method: "GET", Path: "/x", Host: "shop.test", RequestId: "r1", TraceId: "t1", Client: "1.2.3.4", InstanceId: "0198-abcdef01", Upstream: "10.0.0.2:80",
		Connect: durationpb.New(1400 * time.Microsecond), Service: durationpb.New(12 * time.Millisecond), Duration: durationpb.New(14 * time.Millisecond),
		Status: 200, BytesOut: 123, Protocol: "HTTP/2.0", Tls: "1.3",
	}}
	want := `2026-11-21T10:00:00.123Z router[web.abcdef01]: method=GET path="/x" host=shop.test request_id=r1 trace_id=t1 client=1.2.3.4 upstream=10.0.0.2:80 connect=1ms service=12ms duration=14ms status=200 bytes=123 protocol=h2 tls=1.3`
	if got := plain.Line(); got != want {
		t.Errorf("the line is\n%s, want\n%s", got, want)
	}
	odd := requests.Entry{Dropped: 3, AccessLogEntry: &edgev1.AccessLogEntry{
		Time: at, Method: "GET", Path: "/\" status=200 \nrouter: path=\"/", Host: "a b", RequestId: "x status=200", Protocol: "HTTP/1.1", Status: 503, Page: "app_down", Duration: durationpb.New(0)}}
	want = "2026-11-21T10:00:00.123Z router: dropped=3: so many requests before this are not logged\n" +
		`2026-11-21T10:00:00.123Z router: method=GET path="/\" status=200 \nrouter: path=\"/" host="a b" request_id="x status=200" duration=0ms status=503 bytes=0 protocol=h1 page=app_down`
	if got := odd.Line(); got != want {
		t.Errorf("the line is\n%s, want\n%s", got, want)
	}
	if m := odd.Message(); m.GetConnectMs() != nil || m.GetTls() != nil || m.GetDropped() != 3 || fmt.Sprint(m.GetTime().AsTime().Nanosecond()) != "123000000" {
		t.Errorf("the message is %v", m)
	}
}
