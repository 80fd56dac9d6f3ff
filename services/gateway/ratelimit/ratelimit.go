// Package ratelimit counts requests in a sliding window, over every gateway that
// shares a store: at most the quota in any span of time as long as the window. Small
// quotas are exact; of a large one each gateway may use a hundredth before the others
// know. Without the store each gateway goes on counting for itself.
package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxKeys bounds what is kept in memory; the store still knows what was dropped.
	maxKeys = 1 << 14
	// storeTimeout bounds how long a request waits for the store, and storeRest how
	// long the store is then left alone.
	storeTimeout = 250 * time.Millisecond
	storeRest    = time.Second
	// shareTries bounds how often a request tries to be counted while others are.
	shareTries = 32
	// batches is into how many parts a quota is cut: as many requests as one of them
	// holds are counted in the store together.
	batches = 100
)

// Policy is how many requests are let through.
type Policy struct {
	// Name tells clients which policy it was.
	Name string
	// Quota is how many requests may come in any Window; 0 lets all through.
	Quota uint64
	// Window is at least a second.
	Window time.Duration
}

// Key is whose requests are counted, and where they went.
type Key struct{ Who, Endpoint string }

// Verdict is what became of one request.
type Verdict struct {
	// Allowed says whether it is let through.
	Allowed bool
	// Policy is the one that decided.
	Policy Policy
	// Remaining is how many more would be let through now.
	Remaining uint64
	// Reset is how long until one more is, at most a part longer than the window.
	Reset time.Duration
}

// Limiter decides about requests. It may be used concurrently.
type Limiter struct {
	store   Store
	now     func() time.Time
	log     *slog.Logger
	counted *lru.Cache[Key, *count]
	// rests is until when the store is left alone, in nanoseconds since the epoch.
	rests   atomic.Int64
	figures figures
}

// count is what is known of one key.
type count struct {
	mu sync.Mutex
	// all is what every gateway has counted, as far as this one knows, with its own.
	all window
	// unsent is the part of it that the store does not have yet.
	unsent   window
	revision uint64
	loaded   bool
}

// New counts in store, or for itself alone when that is nil; now is its clock, and
// metrics may be nil.
func New(store Store, now func() time.Time, log *slog.Logger, metrics prometheus.Registerer) (*Limiter, error) {
	counted, err := lru.New[Key, *count](maxKeys)
	if err != nil {
		return nil, fmt.Errorf("rate limits: %w", err)
	}
	l := &Limiter{store: store, now: now, log: log, counted: counted}
	if err := l.figures.register(metrics); err != nil {
		return nil, err
	}
	return l, nil
}

// Take counts one request and says whether it is let through. A request that is not
// is not counted.
func (l *Limiter) Take(ctx context.Context, key Key, p Policy) Verdict {
	if p.Quota == 0 {
		return Verdict{Allowed: true, Policy: p}
	}
	c := l.of(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	length := int64(part(p.Window))
	at := l.now().UnixNano() / length
	c.all.forget(at)
	c.unsent.forget(at)
	allowed := c.all.sum < p.Quota
	if allowed {
		c.count(at)
		if due := !c.loaded || c.unsent.sum >= max(1, p.Quota/batches); due && l.store != nil {
			allowed = l.share(ctx, key, p, c, at)
		}
	}
	v := Verdict{Allowed: allowed, Policy: p, Remaining: p.Quota - min(p.Quota, c.all.sum)}
	if c.all.sum > 0 {
		v.Reset = time.Duration(c.all.freed(max(1, min(p.Quota, c.all.sum)), at)*length - l.now().UnixNano())
	}
	if !allowed {
		l.figures.refused.WithLabelValues(p.Name).Inc()
	}
	return v
}

func (c *count) count(at int64) {
	c.all.add(at, 1)
	c.unsent.add(at, 1)
}

// of returns what is known of a key.
func (l *Limiter) of(key Key) *count {
	if c, ok := l.counted.Get(key); ok {
		return c
	}
	fresh := &count{}
	if c, ok, _ := l.counted.PeekOrAdd(key, fresh); ok {
		return c
	}
	return fresh
}

// share brings what was counted here into the store and learns what was counted
// elsewhere. It reports whether the newest of ours, which is counted already, is let
// through; otherwise that one is taken back. Without the store it is.
func (l *Limiter) share(ctx context.Context, key Key, p Policy, c *count, at int64) bool {
	if l.now().UnixNano() < l.rests.Load() {
		l.figures.alone.Inc()
		return true
	}
	// The count matters to others too: the client's going away does not end it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	name := key.name(p)
	err := ErrConflict
	for try := 0; try < shareTries && errors.Is(err, ErrConflict); try++ {
		var revision uint64
		if revision, err = l.store.Swap(ctx, name, c.all.encode(), c.revision); err == nil {
			c.revision, c.loaded = revision, true
			c.unsent.clear()
			return true
		}
		if !errors.Is(err, ErrConflict) {
			break
		}
		others, loadErr := l.load(ctx, name, c, at)
		if loadErr != nil {
			err = loadErr
			break
		}
		others.forget(at)
		// Ours alone comes again when it is let through.
		c.unsent.undo()
		others.merge(c.unsent)
		c.all = others
		if c.all.sum >= p.Quota {
			return false
		}
		c.count(at)
	}
	l.figures.alone.Inc()
	if !errors.Is(err, ErrConflict) {
		l.rests.Store(l.now().Add(storeRest).UnixNano())
		l.log.WarnContext(ctx, "rate limits are counted by each gateway for itself, for the shared counts are away", "error", err)
	}
	return true
}

// load reads what the store has. What cannot be read, or is of a time that is still
// to come, counts as nothing and is written over.
func (l *Limiter) load(ctx context.Context, name string, c *count, at int64) (window, error) {
	value, revision, err := l.store.Load(ctx, name)
	if err != nil {
		return window{}, err
	}
	c.revision, c.loaded = revision, true
	w, err := decode(value)
	if err == nil && len(w.used) > 0 && w.used[len(w.used)-1].at > at+slots {
		w, err = window{}, errBroken
	}
	if err != nil {
		l.log.WarnContext(ctx, "a shared count is begun anew", "error", err)
	}
	return w, nil
}

// name is what the store knows a key by; it does not tell whose it is.
func (k Key) name(p Policy) string {
	hash := sha256.Sum256([]byte(strconv.FormatInt(int64(p.Window), 36) + "\x00" + k.Who + "\x00" + k.Endpoint))
	return hex.EncodeToString(hash[:16])
}

type figures struct {
	refused *prometheus.CounterVec
	alone   prometheus.Counter
}

func (f *figures) register(r prometheus.Registerer) error {
	f.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "slipway_gateway_rate_limited_total", Help: "Requests refused by a rate limit, by policy.",
	}, []string{"policy"})
	f.alone = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "slipway_gateway_rate_limit_local_total", Help: "Requests let through without the counts of the other gateways, for those were away.",
	})
	if r == nil {
		return nil
	}
	if err := errors.Join(r.Register(f.refused), r.Register(f.alone)); err != nil {
		return fmt.Errorf("register the figures of rate limits: %w", err)
	}
	return nil
}
