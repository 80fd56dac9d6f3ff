package access

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/pb/sketchpb"
	"google.golang.org/protobuf/proto"

	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
)

// post is where messages go: as a NATS that takes them, refuses them, or is stuck.
type post struct {
	mu    sync.Mutex
	sent  map[string][][]byte
	fails error
	stuck chan struct{}
}

func (p *post) Publish(subject string, data []byte) error {
	if p.stuck != nil {
		<-p.stuck
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails != nil {
		return p.fails
	}
	if p.sent == nil {
		p.sent = map[string][][]byte{}
	}
	p.sent[subject] = append(p.sent[subject], data)
	return nil
}

func (p *post) batches(t *testing.T) (batches []*edgev1.AccessLogBatch) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, data := range p.sent["log.router.acme.d1"] {
		b := &edgev1.AccessLogBatch{}
		if err := proto.Unmarshal(data, b); err != nil {
			t.Fatal(err)
		}
		batches = append(batches, b)
	}
	return batches
}

func (p *post) summaries(t *testing.T) (all []*edgev1.RequestSummary) {
	t.Helper()
	for _, data := range p.sent["metric.router.acme.d1"] {
		s := &edgev1.RequestSummary{}
		if err := proto.Unmarshal(data, s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func one() *edgev1.AccessLogEntry { return &edgev1.AccessLogEntry{Method: "GET", Path: "/"} }

func run(t *testing.T, r *Recorder) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx, func() map[string]struct{} { return nil }) }()
	t.Cleanup(func() { stop(); <-ended })
}

func TestANATSThatIsStuckHoldsNoRequestUp(t *testing.T) {
	t.Parallel()
	p := &post{stuck: make(chan struct{})}
	r := New("e1", p, slog.New(slog.DiscardHandler))
	run(t, r)
	const apps, each = 100, 500
	begun := time.Now()
	for n := range apps {
		app := r.App("acme", "d"+string(rune('0'+n%10))+string(rune('0'+n/10)))
		for range each {
			app.Served(Served{Status: 200, Duration: time.Millisecond})
			r.Log(app, one)
		}
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("%d requests were held up for %s", apps*each, took)
	}
	lost := r.tooMany.Load() + r.queueFull.Load()
	if kept := apps*each - lost; kept > 4*mostQueued {
		t.Errorf("%d entries are kept in memory", kept)
	}
	close(p.stuck)
	// Its app goes on being logged once NATS is back, and what was lost is said.
	app := r.App("acme", "d1")
	app.dropped.Store(7)
	within(t, "entries come again", func() bool {
		r.Log(app, one)
		batches := p.batches(t)
		return len(batches) > 1 && batches[0].GetDropped() >= 7 && batches[1].GetDropped() == 0
	})
	within(t, "the figures missed none", func() bool {
		all := uint64(0)
		r.apps.Range(func(_, v any) bool { all += v.(*App).tally().timed; return true })
		return all == apps*each
	})
}

func TestAnAppThatIsAskedTooOftenIsLoggedInPartAndSaysSo(t *testing.T) {
	t.Parallel()
	p := &post{}
	r := New("e1", p, slog.New(slog.DiscardHandler))
	app := r.App("acme", "d1")
	for range mostPerFlush + 50 {
		r.Log(app, one)
	}
	run(t, r)
	within(t, "a batch comes", func() bool { return len(p.batches(t)) == 1 })
	if b := p.batches(t)[0]; len(b.GetEntries()) != mostPerFlush || b.GetDropped() != 50 {
		t.Errorf("%d entries, %d dropped", len(b.GetEntries()), b.GetDropped())
	}
	r.Log(app, one)
	within(t, "the next flush has room again", func() bool { return len(p.batches(t)) == 2 })
}

func TestWhatNATSDidNotTakeIsCountedAndSaidLater(t *testing.T) {
	t.Parallel()
	p := &post{fails: errors.New("away")}
	r := New("e1", p, slog.New(slog.DiscardHandler))
	app := r.App("acme", "d1")
	r.Log(app, one)
	r.flush(map[*App][]*edgev1.AccessLogEntry{app: {one(), one()}})
	app.Served(Served{Status: 200, Duration: 10 * time.Millisecond, BytesOut: 5})
	app.Served(Served{Status: 101, Duration: time.Hour, Upgraded: true})
	r.sums(time.Now(), nil)

	p.fails = nil
	app.Served(Served{Status: 502, Duration: 30 * time.Millisecond, BytesIn: 3})
	r.flush(map[*App][]*edgev1.AccessLogEntry{app: {one()}})
	r.sums(time.Now(), nil)
	if b := p.batches(t); len(b) != 1 || b[0].GetDropped() != 2 || r.unsent.Load() != 2 {
		t.Errorf("sent %v", b)
	}
	all := p.summaries(t)
	if len(all) != 1 {
		t.Fatalf("sent %v", all)
	}
	s := all[0]
	if s.GetSuccessful() != 1 || s.GetInformational() != 1 || s.GetServerErrors() != 1 || s.GetBytesIn() != 3 || s.GetBytesOut() != 5 {
		t.Errorf("the sums are %v", s)
	}
	encoded := &sketchpb.DDSketch{}
	if err := proto.Unmarshal(s.GetDurations(), encoded); err != nil {
		t.Fatal(err)
	}
	sketch, err := ddsketch.FromProto(encoded)
	if err != nil {
		t.Fatal(err)
	}
	// The upgraded connection is not one of them.
	slowest, err := sketch.GetValueAtQuantile(1)
	if err != nil || sketch.GetCount() != 2 || slowest < 29 || slowest > 31 {
		t.Errorf("%v durations, the slowest %v ms, %v", sketch.GetCount(), slowest, err)
	}
	r.sums(time.Now(), map[string]struct{}{"another": {}})
	if len(p.summaries(t)) != 1 {
		t.Error("nothing was served, and that was sent")
	}
	if _, there := r.apps.Load("d1"); there {
		t.Error("an app without a route is kept")
	}
}

func TestNoAppIsMadeUp(t *testing.T) {
	t.Parallel()
	r := New("e1", &post{}, slog.New(slog.DiscardHandler))
	for _, names := range [][2]string{{"", ""}, {"acme", ""}, {"acme", "*"}, {">", "d1"}, {"a.b", "d1"}} {
		if r.App(names[0], names[1]) != nil {
			t.Errorf("%q is an app", names)
		}
	}
}

func BenchmarkServed(b *testing.B) {
	p := &post{}
	r := New("e1", p, slog.New(slog.DiscardHandler))
	app := r.App("acme", "d1")
	b.ReportAllocs()
	for b.Loop() {
		r.App("acme", "d1").Served(Served{Status: 200, Duration: time.Millisecond})
		app.taken.Store(0)
		r.Log(app, one)
		select {
		case <-r.queue:
		default:
		}
	}
}

func within(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("never so: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
