package dns_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns"
	"github.com/slipway-paas/slipway/services/dns/zone"
	"github.com/slipway-paas/slipway/services/dns/zone/memory"
)

// world is the service on a real log, with a DNS provider in memory.
type world struct {
	provider *memory.Provider
	store    eventstore.Store
	nats     *nats.Conn
	js       natsjs.JetStream
	seal     *seal.Sealer
	client   dnsv1.DNSAdminServiceClient
	stop     func()

	mu  sync.Mutex
	now time.Time
}

func config() dns.Config {
	return dns.Config{
		BaseDomain: "apps.example.test", EdgeAddresses: []string{"192.0.2.1"}, Zones: []string{"shared.test=*", "acme.test=acme"},
		Settle: 20 * time.Millisecond, CompareEvery: time.Hour,
	}
}

func begin(t *testing.T, c dns.Config) *world {
	t.Helper()
	w := &world{now: time.Now()}
	w.provider = memory.New(w.clock, "example.test", "shared.test", "acme.test")
	w.ground(t)
	w.run(t, c, w.provider.As("ours"))
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) ground(t *testing.T) {
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
	if w.nats, err = natsconn.Connect(natsconn.Config{URL: server.URL(), SeedFile: server.SeedFile(natsconn.RolePlatform), Name: t.Name(), Log: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.nats.Close)
	if w.js, err = natsjs.New(w.nats); err != nil {
		t.Fatal(err)
	}
	if err := natsconn.Provision(t.Context(), w.js, 1); err != nil {
		t.Fatal(err)
	}
	w.store = jetstream.New(w.js, log)
	bucket, err := w.js.KeyValue(t.Context(), subjects.BucketKeys)
	if err != nil {
		t.Fatal(err)
	}
	if w.seal, err = seal.Unlock(t.Context(), seal.From{File: filepath.Join(dir, "master.key")}, bucket); err != nil {
		t.Fatal(err)
	}
}

// run starts the service; the test's end, or stop, stops it.
func (w *world) run(t *testing.T, c dns.Config, provider zone.Provider) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := dns.New(c, dns.Deps{Store: w.store, NATS: w.nats, JetStream: w.js, Seal: w.seal, Log: log, Provider: provider, Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	inside, err := rpc.NewMemory(log)
	if err != nil {
		t.Fatal(err)
	}
	s.Register(inside)
	w.client = dnsv1.NewDNSAdminServiceClient(inside.Conn())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it did not stop cleanly: %v", err)
		}
		_ = inside.Close()
	})
	t.Cleanup(w.stop)
	eventually(t, "it is ready", func() bool { return s.Ready() == nil })
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never so: %s", what)
		}
	}
}

func (w *world) happened(t *testing.T, org, id string, e proto.Message) {
	t.Helper()
	event := eventstore.Event{Aggregate: subjects.Of(org, subjects.Domain, id), ID: uuid.NewString(), Payload: e, Time: time.Now(), Source: "domains"}
	if _, err := w.store.Record(t.Context(), event); err != nil {
		t.Fatal(err)
	}
}

func (w *world) added(t *testing.T, org, id, name string) {
	t.Helper()
	w.happened(t, org, id, &domainv1.DomainAdded{DomainId: id, DeploymentId: "d", Name: name, Target: "app.apps.example.test"})
}

// records are a zone's, a line each.
func (w *world) records(apex string) string {
	var lines []string
	for _, r := range w.provider.All(apex) {
		lines = append(lines, r.Name+" "+r.Type+" "+r.Content)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (w *world) sees(t *testing.T, apex, want string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("%s holds:\n%s", apex, w.records(apex))
		}
	}()
	eventually(t, apex+" holds "+want, func() bool { return w.records(apex) == want })
}

// facts are what the log says of records, in order.
func (w *world) facts(t *testing.T, org string) []string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var facts []string
	err := w.store.Follow(ctx, 0, func(_ context.Context, events []eventstore.Recorded) error {
		for _, rec := range events {
			switch e := rec.Payload.(type) {
			case *dnsv1.RecordApplied:
				facts = append(facts, "applied "+e.GetRecord().GetName())
			case *dnsv1.RecordRemoved:
				facts = append(facts, "removed "+e.GetRecord().GetName())
			case *dnsv1.RecordFailed:
				facts = append(facts, "failed "+e.GetRecord().GetName()+" "+e.GetCode())
			}
		}
		return nil
	}, stop, subjects.OrgFilter(org, subjects.DNSRecord))
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

func (w *world) told(t *testing.T, org string, want ...string) {
	t.Helper()
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("told: %q", got)
		}
	}()
	eventually(t, fmt.Sprintf("the log says %q", want), func() bool {
		got = w.facts(t, org)
		return slices.Equal(got, want)
	})
}

const base = "*.apps.example.test A 192.0.2.1\napps.example.test A 192.0.2.1"

func TestADomainInAZoneOfOursGetsItsRecordByItself(t *testing.T) {
	t.Parallel()
	w := begin(t, config())
	w.sees(t, "example.test", base)
	w.added(t, "acme", "d1", "www.acme.test")
	w.sees(t, "acme.test", "www.acme.test CNAME app.apps.example.test")
	w.told(t, "acme", "applied www.acme.test")
	w.happened(t, "acme", "d1", &domainv1.DomainRemoved{})
	w.sees(t, "acme.test", "")
	w.told(t, "acme", "applied www.acme.test", "removed www.acme.test")
	w.told(t, subjects.Platform, "applied apps.example.test", "applied *.apps.example.test")
}

func TestATenantGetsNothingInAZoneThatIsNotTheirs(t *testing.T) {
	t.Parallel()
	w := begin(t, config())
	w.added(t, "bob", "d1", "www.acme.test")
	w.added(t, "bob", "d2", "www.example.test")
	w.added(t, "bob", "d3", "bob.shared.test")
	w.sees(t, "shared.test", "bob.shared.test CNAME app.apps.example.test")
	eventually(t, "it is said why", func() bool {
		facts := w.facts(t, "bob")
		slices.Sort(facts)
		return slices.Equal(facts, []string{"applied bob.shared.test", "failed www.acme.test not_allowed", "failed www.example.test not_allowed"})
	})
	w.sees(t, "acme.test", "")
	w.sees(t, "example.test", base)
	res, err := w.client.GetDNS(t.Context(), &dnsv1.GetDNSRequest{})
	if err != nil || res.GetWanted() != 5 || res.GetApplied() != 3 || res.GetFailed() != 2 || len(res.GetFailures()) != 2 || len(res.GetZones()) != 3 {
		t.Errorf("the status is %v, %v", res, err)
	}
}

func TestWhatOthersMadeStays(t *testing.T) {
	t.Parallel()
	w := begin(t, config())
	theirs, err := w.provider.As("somebody").Zones(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	record, err := theirs[0].Create(t.Context(), zone.Record{Name: "www.acme.test", Type: zone.A, Content: "198.51.100.7", TTL: 300})
	if err != nil {
		t.Fatal(err)
	}
	w.added(t, "acme", "d1", "www.acme.test")
	w.told(t, "acme", "failed www.acme.test taken")
	w.sees(t, "acme.test", "www.acme.test A 198.51.100.7")
	// They take it away: the next comparison makes ours.
	if err := theirs[0].Delete(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.SyncDNS(t.Context(), &dnsv1.SyncDNSRequest{}); err != nil {
		t.Fatal(err)
	}
	w.sees(t, "acme.test", "www.acme.test CNAME app.apps.example.test")
	w.told(t, "acme", "failed www.acme.test taken", "applied www.acme.test")
}

func TestAddressesAreNotMixedWithThoseOfOthers(t *testing.T) {
	t.Parallel()
	w := &world{now: time.Now()}
	w.provider = memory.New(w.clock, "example.test")
	zones, err := w.provider.As("somebody").Zones(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A provider would have both, and visitors be sent to either.
	if _, err := zones[0].Create(t.Context(), zone.Record{Name: "apps.example.test", Type: zone.A, Content: "198.51.100.7", TTL: 300}); err != nil {
		t.Fatal(err)
	}
	w.ground(t)
	w.run(t, config(), w.provider.As("ours"))
	w.sees(t, "example.test", "*.apps.example.test A 192.0.2.1\napps.example.test A 198.51.100.7")
	w.told(t, subjects.Platform, "failed apps.example.test taken", "applied *.apps.example.test")
}

func TestAnOutageDelaysARecordAndLosesNone(t *testing.T) {
	t.Parallel()
	w := begin(t, config())
	w.sees(t, "example.test", base)
	w.provider.Fail(func(string) (error, error) { return zone.ErrUnavailable, nil })
	for i := range 5 {
		w.added(t, "acme", fmt.Sprint("d", i), fmt.Sprintf("w%d.acme.test", i))
	}
	eventually(t, "who waits is told once", func() bool {
		return slices.Contains(w.facts(t, "acme"), "failed w4.acme.test unavailable")
	})
	w.provider.Fail(nil)
	eventually(t, "all are there", func() bool { return strings.Count(w.records("acme.test"), "CNAME") == 5 })
	eventually(t, "each is told of once", func() bool {
		facts := w.facts(t, "acme")
		return len(facts) == 10 && strings.Count(strings.Join(facts, "\n"), "applied") == 5
	})
}

func TestItGoesOnAfterARestartWithoutSayingItAgain(t *testing.T) {
	t.Parallel()
	w := begin(t, config())
	w.added(t, "acme", "d1", "www.acme.test")
	w.told(t, "acme", "applied www.acme.test")
	w.stop()
	w.happened(t, "acme", "d1", &domainv1.DomainRemoved{})
	w.added(t, "acme", "d2", "api.acme.test")
	w.run(t, config(), w.provider.As("ours"))
	w.sees(t, "acme.test", "api.acme.test CNAME app.apps.example.test")
	w.told(t, "acme", "applied www.acme.test", "applied api.acme.test", "removed www.acme.test")
}

func value(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestWithoutATokenItSaysSo(t *testing.T) {
	t.Parallel()
	w := &world{now: time.Now(), provider: memory.New(nil)}
	w.ground(t)
	w.run(t, config(), nil)
	res, err := w.client.GetDNS(t.Context(), &dnsv1.GetDNSRequest{})
	if err != nil || res.GetProvider() != "none" || !strings.Contains(res.GetTrouble(), "--cloudflare-token-file") {
		t.Errorf("the status is %v, %v", res, err)
	}
	if why := w.challenge(t, present, "_acme-challenge.apps.example.test", value("x")); !strings.Contains(why, "holds no DNS zone") {
		t.Errorf("a challenge is answered %q", why)
	}
	if _, err := w.client.CreateTunnel(t.Context(), &dnsv1.CreateTunnelRequest{Name: "home"}); problem.From(err).Status != 422 {
		t.Errorf("a tunnel: %v", err)
	}
	if _, err := w.client.SyncDNS(t.Context(), &dnsv1.SyncDNSRequest{}); problem.From(err).Status != 422 {
		t.Errorf("a comparison: %v", err)
	}
}

// TestWhateverHappensTheZonesEndAsTheyShallBe gives random domains to random orgs while
// the provider fails in random ways.
func TestWhateverHappensTheZonesEndAsTheyShallBe(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 7))
			w := begin(t, config())
			theirs, err := w.provider.As("somebody").Zones(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			for i := range 3 {
				name := fmt.Sprintf("n%d.shared.test", i)
				if _, err := theirs[2].Create(t.Context(), zone.Record{Name: name, Type: zone.A, Content: "198.51.100.7", TTL: 300}); err != nil {
					t.Fatal(err)
				}
				want[name] = name + " A 198.51.100.7"
			}
			faults := rand.New(rand.NewPCG(seed, 8))
			w.provider.Fail(func(string) (error, error) {
				switch faults.IntN(8) {
				case 0:
					return zone.ErrUnavailable, nil
				case 1:
					return zone.ErrLimited, nil
				case 2:
					return nil, zone.ErrUnavailable
				}
				return nil, nil
			})
			live := map[string]string{} // name to domain id
			for i := range 60 {
				name := fmt.Sprintf("n%d.shared.test", random.IntN(12))
				if id, ok := live[name]; ok {
					w.happened(t, "acme", id, &domainv1.DomainRemoved{})
					delete(live, name)
					continue
				}
				live[name] = fmt.Sprint("d", i)
				w.added(t, "acme", live[name], name)
			}
			for name := range live {
				if want[name] == "" {
					want[name] = name + " CNAME app.apps.example.test"
				}
			}
			var lines []string
			for _, line := range want {
				lines = append(lines, line)
			}
			slices.Sort(lines)
			w.provider.Fail(nil)
			if _, err := w.client.SyncDNS(t.Context(), &dnsv1.SyncDNSRequest{}); err != nil {
				t.Fatal(err)
			}
			w.sees(t, "shared.test", strings.Join(lines, "\n"))
		})
	}
}
