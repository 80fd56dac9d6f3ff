package cloudflare_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	fake "github.com/slipway-paas/slipway/e2e/fakes/cloudflare"
	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns"
)

// platform is the service on a real log, with the fake API.
type platform struct {
	api    *fake.Server
	url    string
	store  eventstore.Store
	js     natsjs.JetStream
	dir    string
	client dnsv1.DNSAdminServiceClient
	deps   dns.Deps
	log    lines
}

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func begin(t *testing.T, zones ...string) *platform {
	t.Helper()
	p := &platform{dir: t.TempDir()}
	p.api, p.url = serve(t, fake.Options{Zones: zones, MostPerPage: 5})
	log := slog.New(slog.NewTextHandler(&p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	keys, err := natsconn.EnsureKeys(filepath.Join(p.dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: filepath.Join(p.dir, "store"), Keys: keys, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	nc, err := natsconn.Connect(natsconn.Config{URL: server.URL(), SeedFile: server.SeedFile(natsconn.RolePlatform), Name: t.Name(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if p.js, err = natsjs.New(nc); err != nil {
		t.Fatal(err)
	}
	if err := natsconn.Provision(t.Context(), p.js, 1); err != nil {
		t.Fatal(err)
	}
	p.store = jetstream.New(p.js, quiet)
	bucket, err := p.js.KeyValue(t.Context(), subjects.BucketKeys)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.Unlock(t.Context(), seal.From{File: filepath.Join(p.dir, "master.key")}, bucket)
	if err != nil {
		t.Fatal(err)
	}
	p.deps = dns.Deps{Store: p.store, NATS: nc, JetStream: p.js, Seal: sealer, Log: log}
	return p
}

func (p *platform) config(cf dns.Cloudflare) dns.Config {
	cf.URL, cf.Rate = p.url, 1_000_000
	c := dns.Config{
		EdgeAddresses: []string{"192.0.2.1", "192.0.2.2"}, Zones: []string{"shared.test=*"},
		Settle: 600 * time.Millisecond, CompareEvery: time.Hour,
	}
	return c.With("apps.example.test", cf)
}

// run starts the service and returns what stops it.
func (p *platform) run(t *testing.T, cf dns.Cloudflare) (stop func()) {
	t.Helper()
	s, err := dns.New(p.config(cf), p.deps)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := rpc.NewMemory(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Register(inside)
	p.client = dnsv1.NewDNSAdminServiceClient(inside.Conn())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it did not stop cleanly: %v", err)
		}
		_ = inside.Close()
	})
	t.Cleanup(stop)
	eventually(t, "it is ready", func() bool { return s.Ready() == nil })
	return stop
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never so: %s", what)
		}
	}
}

func (p *platform) happened(t *testing.T, id string, e proto.Message) {
	t.Helper()
	event := eventstore.Event{Aggregate: subjects.Of("acme", subjects.Domain, id), ID: uuid.NewString(), Payload: e, Time: time.Now(), Source: "domains"}
	if _, err := p.store.Record(t.Context(), event); err != nil {
		t.Fatal(err)
	}
}

func (p *platform) records(apex string) string {
	var all []string
	for _, r := range p.api.Records(apex) {
		all = append(all, r.Name+" "+r.Type+" "+r.Content)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

const base = "*.apps.example.test A 192.0.2.1\n*.apps.example.test A 192.0.2.2\napps.example.test A 192.0.2.1\napps.example.test A 192.0.2.2"

func TestTheTokenIsKeptSealedAndNeverLogged(t *testing.T) {
	t.Parallel()
	p := begin(t, "example.test")
	file := filepath.Join(p.dir, "token")
	if err := os.WriteFile(file, []byte("fake-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := p.run(t, dns.Cloudflare{TokenFile: file})
	eventually(t, "the zone is as it shall be", func() bool { return p.records("example.test") == base })
	stop()
	bucket, err := p.js.KeyValue(t.Context(), subjects.BucketProviders)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := bucket.Get(t.Context(), "cloudflare")
	if err != nil || bytes.Contains(kept.Value(), []byte("fake-token")) {
		t.Fatalf("kept: %v, in clear or not at all", err)
	}
	// It goes on without the file.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	stop = p.run(t, dns.Cloudflare{})
	if res, err := p.client.SyncDNS(t.Context(), &dnsv1.SyncDNSRequest{}); err != nil || res.GetTrouble() != "" || res.GetApplied() != 4 {
		t.Errorf("without the file: %v, %v", res, err)
	}
	stop()
	// A wrong one is said, and nothing ends.
	stop = p.run(t, dns.Cloudflare{Token: "wrong-token"})
	eventually(t, "the trouble is told", func() bool {
		res, err := p.client.GetDNS(t.Context(), &dnsv1.GetDNSRequest{})
		return err == nil && strings.Contains(res.GetTrouble(), "may not do this")
	})
	stop()
	p.run(t, dns.Cloudflare{Forget: true})
	if res, err := p.client.GetDNS(t.Context(), &dnsv1.GetDNSRequest{}); err != nil || res.GetProvider() != "none" {
		t.Errorf("after it was forgotten: %v, %v", res, err)
	}
	if text := p.log.String(); strings.Contains(text, "fake-token") || strings.Contains(text, "wrong-token") {
		t.Error("a token is in the log")
	}
}

func TestATunnelAtCloudflare(t *testing.T) {
	t.Parallel()
	p := begin(t, "example.test")
	p.run(t, dns.Cloudflare{Token: "fake-token"})
	eventually(t, "the zone is as it shall be", func() bool { return p.records("example.test") == base })
	made, err := p.client.CreateTunnel(t.Context(), &dnsv1.CreateTunnelRequest{Name: "home"})
	if err != nil || made.GetTunnel().GetStatus() != "ready" {
		t.Fatalf("%v, %v", made, err)
	}
	const name = "slipway-apps.example.test-home"
	if rules := p.api.Tunnels()[name]; len(rules) != 3 || rules[1].Hostname != "*.apps.example.test" || rules[2].Service != "http_status:404" {
		t.Errorf("its rules: %v", rules)
	}
	target := made.GetTunnel().GetTunnelId() + ".cfargotunnel.com"
	eventually(t, "the routes lead to it", func() bool {
		return p.records("example.test") == "*.apps.example.test CNAME "+target+"\napps.example.test CNAME "+target
	})
	for _, r := range p.api.Records("example.test") {
		if !r.Proxied {
			t.Errorf("%s is not proxied", r.Name)
		}
	}
	token, err := p.client.RevealTunnelToken(t.Context(), &dnsv1.RevealTunnelTokenRequest{Name: "home"})
	if err != nil || token.GetToken() == "" || strings.Contains(token.GetCommand(), token.GetToken()) || strings.Contains(p.log.String(), token.GetToken()) {
		t.Errorf("its token is shown to who asks alone: %v, %v", token, err)
	}
	p.api.Connect(name, true)
	gone, err := p.client.DeleteTunnel(t.Context(), &dnsv1.DeleteTunnelRequest{Name: "home"})
	if err != nil || !strings.Contains(gone.GetMessage(), "active connections") {
		t.Errorf("while it runs: %v, %v", gone, err)
	}
	p.api.Connect(name, false)
	eventually(t, "it is gone", func() bool {
		_, _ = p.client.SyncDNS(t.Context(), &dnsv1.SyncDNSRequest{})
		return len(p.api.Tunnels()) == 0 && p.records("example.test") == base
	})
}

// TestAStaleReadFoolsNobody: a domain goes and comes back before reads show that its
// record went.
func TestAStaleReadFoolsNobody(t *testing.T) {
	t.Parallel()
	p := begin(t, "example.test", "shared.test")
	p.run(t, dns.Cloudflare{Token: "fake-token"})
	added := func(id string) {
		t.Helper()
		p.happened(t, id, &domainv1.DomainAdded{DomainId: id, Name: "www.shared.test", Target: "app.apps.example.test"})
	}
	const want = "www.shared.test CNAME app.apps.example.test"
	added("d1")
	eventually(t, "the record is there, and long enough to be read", func() bool {
		all := p.api.Records("shared.test")
		return len(all) == 1 && time.Since(all[0].CreatedOn) > 600*time.Millisecond
	})
	p.api.Lag(400 * time.Millisecond)
	p.happened(t, "d1", &domainv1.DomainRemoved{})
	eventually(t, "it is gone", func() bool { return p.records("shared.test") == "" })
	added("d2")
	eventually(t, "it is there again", func() bool { return p.records("shared.test") == want })
}

// TestALostAnswerIsNoRecordOfSomebodyElse: what was made without our knowing is ours,
// once it is seen.
func TestALostAnswerIsNoRecordOfSomebodyElse(t *testing.T) {
	t.Parallel()
	p := begin(t, "example.test", "shared.test")
	p.api.Lag(1500 * time.Millisecond)
	p.run(t, dns.Cloudflare{Token: "fake-token"})
	eventually(t, "the zone is as it shall be", func() bool { return p.records("example.test") == base })
	lost, other := 0, p.api.Records("example.test")[0].ZoneID
	p.api.Fail(func(r *http.Request) fake.Fault {
		if r.Method != http.MethodPost || lost > 0 || strings.Contains(r.URL.Path, other) {
			return fake.Fault{}
		}
		lost++
		return fake.Fault{Lost: true, Done: true}
	})
	p.happened(t, "d1", &domainv1.DomainAdded{DomainId: "d1", Name: "www.shared.test", Target: "app.apps.example.test"})
	var facts []string
	eventually(t, "it counts as made", func() bool {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		facts = nil
		err := p.store.Follow(ctx, 0, func(_ context.Context, events []eventstore.Recorded) error {
			for _, rec := range events {
				facts = append(facts, rec.Type()+rec.Payload.(interface{ GetRecord() *dnsv1.Record }).GetRecord().GetName())
				if f, ok := rec.Payload.(*dnsv1.RecordFailed); ok {
					facts = append(facts, f.GetCode())
				}
			}
			return nil
		}, stop, subjects.OrgFilter("acme", subjects.DNSRecord))
		return err == nil && slices.Contains(facts, "RecordAppliedwww.shared.test")
	})
	if slices.Contains(facts, "taken") || len(p.api.Records("shared.test")) != 1 {
		t.Errorf("told %q", facts)
	}
}

// TestWhateverTheAPIDoesTheZonesEndAsTheyShallBe has domains come and go while the API
// limits, fails, loses answers of what it did, and shows what was.
func TestWhateverTheAPIDoesTheZonesEndAsTheyShallBe(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			p := begin(t, "example.test", "shared.test")
			said := "made by hand"
			want := map[string]string{"n0.shared.test": "n0.shared.test A 198.51.100.7"}
			theirs := p.api.Put("shared.test", fake.Record{Name: "n0.shared.test", Type: "A", Content: "198.51.100.7", Comment: &said})
			random, faults := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
			p.api.Lag(100 * time.Millisecond)
			p.api.Fail(func(*http.Request) fake.Fault {
				done := faults.IntN(2) == 0
				switch faults.IntN(12) {
				case 0:
					return fake.Fault{Status: http.StatusTooManyRequests, RetryAfter: "0"}
				case 1:
					return fake.Fault{Status: http.StatusBadGateway, Done: done}
				case 2:
					return fake.Fault{Lost: true, Done: done}
				case 3:
					return fake.Fault{Garbage: true, Done: done}
				}
				return fake.Fault{}
			})
			stop := p.run(t, dns.Cloudflare{Token: "fake-token"})
			live := map[string]string{}
			for i := range 50 {
				name := fmt.Sprintf("n%d.shared.test", random.IntN(10))
				if id, ok := live[name]; ok {
					p.happened(t, id, &domainv1.DomainRemoved{})
					delete(live, name)
				} else {
					live[name] = fmt.Sprint("d", i)
					p.happened(t, live[name], &domainv1.DomainAdded{DomainId: live[name], Name: name, Target: "app.apps.example.test"})
				}
				switch random.IntN(12) {
				case 0:
					stop()
					stop = p.run(t, dns.Cloudflare{Token: "fake-token"})
				case 1, 2:
					_, _ = p.client.SyncDNS(t.Context(), &dnsv1.SyncDNSRequest{}) // fails as the API does
				}
			}
			for name := range live {
				if want[name] == "" {
					want[name] = name + " CNAME app.apps.example.test"
				}
			}
			var all []string
			for _, line := range want {
				all = append(all, line)
			}
			slices.Sort(all)
			p.api.Fail(nil)
			eventually(t, "the zones are as they shall be", func() bool {
				_, _ = p.client.SyncDNS(t.Context(), &dnsv1.SyncDNSRequest{})
				return p.records("shared.test") == strings.Join(all, "\n") && p.records("example.test") == base
			})
			if got := p.api.Records("shared.test")[0]; got.ID != theirs || got.Said() != said {
				t.Errorf("what others made is now %+v", got)
			}
			eventually(t, "the status says so", func() bool {
				res, err := p.client.SyncDNS(t.Context(), &dnsv1.SyncDNSRequest{})
				failed := uint32(0)
				if live["n0.shared.test"] != "" {
					failed = 1 // somebody else's record has the name
				}
				return err == nil && res.GetTrouble() == "" && res.GetWanted() == uint32(4+len(live)) && res.GetApplied() == res.GetWanted()-failed && res.GetFailed() == failed
			})
		})
	}
}
