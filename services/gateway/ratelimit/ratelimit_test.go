package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/ratelimit"
)

var (
	key    = ratelimit.Key{Who: "op-1", Endpoint: "GET /status"}
	thirty = ratelimit.Policy{Name: "reads", Quota: 30, Window: time.Minute}
)

// clock is set by hand.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 5, 21, 10, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func limiter(t testing.TB, store ratelimit.Store, c *clock, metrics prometheus.Registerer) *ratelimit.Limiter {
	t.Helper()
	l, err := ratelimit.New(store, c.now, slog.New(slog.DiscardHandler), metrics)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// bucket is the platform's own, on a server that runs until the test ends.
func bucket(t testing.TB) jetstream.KeyValue {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	keys, err := natsconn.EnsureKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: t.TempDir(), Keys: keys, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	nc, err := natsconn.Connect(natsconn.Config{URL: server.URL(), SeedFile: server.SeedFile(natsconn.RolePlatform), Role: natsconn.RolePlatform, Name: "test", Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := natsconn.Provision(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), subjects.BucketRates)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func TestAQuotaHoldsAndComesBack(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := limiter(t, nil, c, nil)
	for i := range 30 {
		v := l.Take(t.Context(), key, thirty)
		if !v.Allowed || v.Remaining != uint64(29-i) {
			t.Fatalf("request %d: %+v", i+1, v)
		}
		c.advance(time.Second)
	}
	refused := l.Take(t.Context(), key, thirty)
	if refused.Allowed || refused.Remaining != 0 {
		t.Fatalf("the 31st: %+v", refused)
	}
	// The first was 30 s ago.
	if wait := refused.RetryAfter(); wait < 30*time.Second || wait > 31*time.Second {
		t.Errorf("retry after %s", wait)
	}
	if other := l.Take(t.Context(), ratelimit.Key{Who: "op-2", Endpoint: key.Endpoint}, thirty); !other.Allowed {
		t.Error("another operator was refused")
	}
	if other := l.Take(t.Context(), ratelimit.Key{Who: key.Who, Endpoint: "GET /tiers"}, thirty); !other.Allowed {
		t.Error("another endpoint was refused")
	}
	c.advance(refused.RetryAfter())
	if v := l.Take(t.Context(), key, thirty); !v.Allowed {
		t.Error("refused after waiting as told")
	}
	if v := l.Take(t.Context(), key, thirty); v.Allowed {
		t.Error("two were let through where one had come back")
	}
}

func TestNoQuotaLetsAllThrough(t *testing.T) {
	t.Parallel()
	l := limiter(t, nil, newClock(), nil)
	for range 1000 {
		if v := l.Take(t.Context(), key, ratelimit.Policy{Name: "reads", Window: time.Minute}); !v.Allowed {
			t.Fatal("refused without a limit")
		}
	}
}

// Whenever and by whichever gateway requests come, no window holds more than the quota,
// and what is refused would have been too much.
func TestNoWindowHoldsMoreThanTheQuota(t *testing.T) {
	t.Parallel()
	kv := bucket(t)
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 0))
			c := newClock()
			gateways := []*ratelimit.Limiter{
				limiter(t, ratelimit.NewKV(kv), c, nil), limiter(t, ratelimit.NewKV(kv), c, nil), limiter(t, ratelimit.NewKV(kv), c, nil),
			}
			policy := ratelimit.Policy{Name: "reads", Quota: 1 + r.Uint64N(40), Window: time.Minute}
			mine := ratelimit.Key{Who: fmt.Sprint("op-", seed), Endpoint: "x"}
			var let []time.Time
			within := func(span time.Duration) (n uint64) {
				for _, at := range let {
					if at.After(c.now().Add(-span)) {
						n++
					}
				}
				return n
			}
			for range 600 {
				c.advance(time.Duration(r.Int64N(int64(3 * time.Second))))
				v := gateways[r.IntN(len(gateways))].Take(t.Context(), mine, policy)
				if v.Allowed {
					let = append(let, c.now())
				}
				if n := within(policy.Window); n > policy.Quota {
					t.Fatalf("%d in a window, the quota is %d", n, policy.Quota)
				}
				if n := within(policy.Window + 100*time.Millisecond); !v.Allowed && n < policy.Quota {
					t.Fatalf("refused with %d of %d in the window", n, policy.Quota)
				}
			}
		})
	}
}

func TestTwoGatewaysAtOnceShareOneQuota(t *testing.T) {
	t.Parallel()
	kv, c := bucket(t), newClock()
	gateways := []*ratelimit.Limiter{limiter(t, ratelimit.NewKV(kv), c, nil), limiter(t, ratelimit.NewKV(kv), c, nil)}
	var let atomic.Int64
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			if gateways[i%2].Take(t.Context(), key, thirty).Allowed {
				let.Add(1)
			}
		})
	}
	all.Wait()
	if let.Load() != 30 {
		t.Errorf("%d of 200 were let through, the quota is 30", let.Load())
	}
}

// A large quota costs the store a hundredth of its requests, and overshoots by no more
// than a hundredth for each gateway.
func TestALargeQuotaIsSharedInBatches(t *testing.T) {
	t.Parallel()
	store, c := &counting{Store: ratelimit.NewKV(bucket(t))}, newClock()
	large := ratelimit.Policy{Name: "reads", Quota: 10_000, Window: time.Minute}
	gateways := []*ratelimit.Limiter{limiter(t, store, c, nil), limiter(t, store, c, nil)}
	let := 0
	for i := range 12_000 {
		if gateways[i%2].Take(t.Context(), key, large).Allowed {
			let++
		}
	}
	if let < 10_000 || let > 10_200 {
		t.Errorf("%d were let through, the quota is 10000", let)
	}
	if n := store.swaps.Load(); n > 450 {
		t.Errorf("%d writes for %d requests", n, let)
	}
}

type counting struct {
	ratelimit.Store
	swaps atomic.Int64
}

func (s *counting) Swap(ctx context.Context, name string, value []byte, revision uint64) (uint64, error) {
	s.swaps.Add(1)
	return s.Store.Swap(ctx, name, value, revision)
}

// failing is a store that is away while down is set.
type failing struct {
	ratelimit.Store
	down  atomic.Bool
	asked atomic.Int64
}

var errAway = errors.New("the store is away")

func (s *failing) Load(ctx context.Context, name string) ([]byte, uint64, error) {
	if s.asked.Add(1); s.down.Load() {
		return nil, 0, errAway
	}
	return s.Store.Load(ctx, name)
}

func (s *failing) Swap(ctx context.Context, name string, value []byte, revision uint64) (uint64, error) {
	if s.asked.Add(1); s.down.Load() {
		return 0, errAway
	}
	return s.Store.Swap(ctx, name, value, revision)
}

func TestWithoutTheStoreEachGatewayLimitsByItself(t *testing.T) {
	t.Parallel()
	c, metrics := newClock(), prometheus.NewRegistry()
	store := &failing{Store: ratelimit.NewKV(bucket(t))}
	one, two := limiter(t, store, c, metrics), limiter(t, store, c, nil)
	take := func(l *ratelimit.Limiter, n int) (let int) {
		for range n {
			if l.Take(t.Context(), key, thirty).Allowed {
				let++
			}
		}
		return let
	}
	if let := take(one, 10); let != 10 {
		t.Fatalf("%d of 10 were let through", let)
	}
	store.down.Store(true)
	asked := store.asked.Load()
	if let := take(one, 100); let != 20 {
		t.Errorf("without the store %d were let through, 20 were left", let)
	}
	if n := store.asked.Load() - asked; n > 2 {
		t.Errorf("a store that is away was asked %d times at once", n)
	}
	if let := take(two, 100); let != 30 {
		t.Errorf("a gateway that knows of no other let %d through", let)
	}
	if n := counter(t, metrics, "slipway_gateway_rate_limit_local_total"); n != 20 {
		t.Errorf("the figures say %v were let through without the store", n)
	}
	if n := counter(t, metrics, "slipway_gateway_rate_limited_total"); n != 80 {
		t.Errorf("the figures say %v were refused", n)
	}
	// Back again: what each has counted meanwhile is told to the others.
	store.down.Store(false)
	c.advance(61 * time.Second)
	if let := take(one, 5) + take(two, 100); let != 30 {
		t.Errorf("with the store again %d were let through", let)
	}
}

func counter(t *testing.T, from prometheus.Gatherer, name string) (sum float64) {
	t.Helper()
	all, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestWhatTheStoreForgotIsBegunAnew(t *testing.T) {
	t.Parallel()
	kv, c := bucket(t), newClock()
	l := limiter(t, ratelimit.NewKV(kv), c, nil)
	l.Take(t.Context(), key, thirty)
	names, err := kv.Keys(t.Context())
	if err != nil || len(names) != 1 {
		t.Fatalf("the store has %v: %v", names, err)
	}
	if err := kv.Purge(t.Context(), names[0]); err != nil {
		t.Fatal(err)
	}
	c.advance(2 * time.Minute)
	if v := l.Take(t.Context(), key, thirty); !v.Allowed || v.Remaining != 29 {
		t.Errorf("after the store forgot: %+v", v)
	}
	if _, err := kv.Put(t.Context(), names[0], []byte("rubbish")); err != nil {
		t.Fatal(err)
	}
	if v := l.Take(t.Context(), key, thirty); !v.Allowed || v.Remaining != 29 {
		t.Errorf("over rubbish: %+v", v)
	}
}

func TestFieldsAreThoseOfTheDraft(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := limiter(t, nil, c, nil)
	c.advance(50 * time.Millisecond)
	policy, limit := l.Take(t.Context(), key, thirty).Fields()
	if policy != `"reads";q=30;w=60` || limit != `"reads";r=29;t=61` {
		t.Errorf("%s and %s", policy, limit)
	}
}

func BenchmarkTake(b *testing.B) {
	l := limiter(b, ratelimit.NewKV(bucket(b)), newClock(), nil)
	large := ratelimit.Policy{Name: "reads", Quota: 10_000_000_000, Window: time.Minute}
	for b.Loop() {
		if !l.Take(b.Context(), key, large).Allowed {
			b.Fatal("refused")
		}
	}
}

// What one exact request costs, with the store in the same process.
func BenchmarkTakeShared(b *testing.B) {
	kv, c := bucket(b), newClock()
	one, two := limiter(b, ratelimit.NewKV(kv), c, nil), limiter(b, ratelimit.NewKV(kv), c, nil)
	b.Run("one gateway", func(b *testing.B) {
		for b.Loop() {
			one.Take(b.Context(), key, thirty)
			c.advance(3 * time.Second)
		}
	})
	b.Run("two in turn", func(b *testing.B) {
		for b.Loop() {
			one.Take(b.Context(), key, thirty)
			one, two = two, one
			c.advance(3 * time.Second)
		}
	})
}
