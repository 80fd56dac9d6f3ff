// Package balance chooses which instance of an app a request goes to: the one
// with the fewest requests under way, none that keeps failing while another one
// serves, and the client's own where the app asked for that.
package balance

import (
	"crypto/sha256"
	"encoding/base64"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

const (
	// idle is how long an instance without a request is remembered at least.
	idle = 15 * time.Minute
	// firstSweep is how many instances are known before idle ones are looked for.
	firstSweep = 1024
)

// Settings say when an instance is passed over, and for how long.
type Settings struct {
	// InARow is how many requests in a row must have found no connection, a broken
	// one or no answer in time; 0 ejects nothing for that.
	InARow int
	// Burst is how many answers of 500 and above within Window make an outlier of an
	// instance that mostly fails while another one of its app does not; 0 ejects
	// nothing for that.
	Burst int
	// Window is how far back answers count.
	Window time.Duration
	// For is how long an instance is passed over the first time. Each further time in
	// a row adds as much again, up to maxTimes of it.
	For time.Duration
}

// maxTimes bounds an ejection to that many times Settings.For.
const maxTimes = 6

// Ejection is one instance that is passed over from now on.
type Ejection struct {
	Instance *Instance
	Route    *routingv1.Route
	// Reason is a sentence.
	Reason string
	// Failures are those that led to it.
	Failures int
	Until    time.Time
}

// Pool knows the instances that requests went to. It is safe for concurrent use.
type Pool struct {
	settings Settings
	now      func() time.Time
	ejected  func(Ejection)

	mu        sync.RWMutex
	instances map[key]*Instance
	sweepAt   int
}

// key has the address too: an instance that is started again may get another one,
// and what was learnt of the old one does not hold for it.
type key struct{ id, address string }

// Instance is one upstream and what requests found there.
type Instance struct {
	ID, Address string
	// Token names the instance in a cookie without telling where it is: the same in
	// every edge, so that a client stays whichever edge it meets.
	Token string

	underWay atomic.Int64
	used     atomic.Int64 // Unix nanoseconds
	// until is when the instance takes requests again, in Unix nanoseconds; 0 when it does.
	until atomic.Int64

	mu     sync.Mutex
	record record
}

// New returns a pool that knows no instance. ejected is called for each ejection,
// on the goroutine of the request that led to it: it must not block.
func New(s Settings, now func() time.Time, ejected func(Ejection)) *Pool {
	return &Pool{settings: s, now: now, ejected: ejected, instances: map[key]*Instance{}, sweepAt: firstSweep}
}

// Take chooses an instance of the route and counts a request to it; Done must
// follow. tried are the instances of the attempts before, avoided while there is
// another; token is the client's own, empty for none. It returns nil when the
// route has no instance.
func (p *Pool) Take(route *routingv1.Route, tried []*Instance, token string) *Instance {
	upstreams := route.GetUpstreams()
	now := p.now().UnixNano()
	var best *Instance
	var bestRank rank
	ties := 0
	for _, u := range upstreams {
		i := p.instance(u)
		if len(upstreams) == 1 {
			best = i
			break
		}
		r := rank{tried: times(i, tried), ejected: i.until.Load() > now, load: i.underWay.Load()}
		if token != "" && token == i.Token && r.tried == 0 && !r.ejected {
			best = i
			break
		}
		switch {
		case best == nil || r.before(bestRank):
			best, bestRank, ties = i, r, 1
		case r == bestRank:
			// Each of n equals is chosen with the same chance, one in n.
			if ties++; rand.IntN(ties) == 0 {
				best = i
			}
		}
	}
	if best != nil {
		best.underWay.Add(1)
		best.used.Store(now)
	}
	return best
}

// rank orders instances by who should get the next request.
type rank struct {
	tried   int
	ejected bool
	load    int64
}

func times(i *Instance, tried []*Instance) int {
	n := 0
	for _, t := range tried {
		if t == i {
			n++
		}
	}
	return n
}

func (r rank) before(other rank) bool {
	if r.tried != other.tried {
		return r.tried < other.tried
	}
	if r.ejected != other.ejected {
		return other.ejected
	}
	return r.load < other.load
}

// Done ends what Take began.
func (i *Instance) Done() { i.underWay.Add(-1) }

// UnderWay is the number of requests that were sent to the instance and have not ended.
func (i *Instance) UnderWay() int { return int(i.underWay.Load()) }

// Ejected counts the instances that are passed over now.
func (p *Pool) Ejected() int {
	now := p.now().UnixNano()
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := 0
	for _, i := range p.instances {
		if i.until.Load() > now {
			n++
		}
	}
	return n
}

func (p *Pool) instance(u *routingv1.Upstream) *Instance {
	k := key{u.GetInstanceId(), u.GetAddress()}
	p.mu.RLock()
	i, ok := p.instances[k]
	p.mu.RUnlock()
	if ok {
		return i
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i, ok := p.instances[k]; ok {
		return i
	}
	if len(p.instances) >= p.sweepAt {
		p.sweep()
	}
	i = &Instance{ID: k.id, Address: k.address, Token: token(k)}
	i.used.Store(p.now().UnixNano())
	p.instances[k] = i
	return i
}

// sweep forgets instances that nobody asked for in a while. It is called when their
// number has doubled, so that it costs each instance a constant.
func (p *Pool) sweep() {
	before := p.now().Add(-idle).UnixNano()
	for k, i := range p.instances {
		if i.underWay.Load() == 0 && i.used.Load() < before {
			delete(p.instances, k)
		}
	}
	p.sweepAt = max(firstSweep, 2*len(p.instances))
}

func token(k key) string {
	sum := sha256.Sum256([]byte("slipway sticky\x00" + k.id + "\x00" + k.address))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// Known is the number of instances that are remembered.
func (p *Pool) Known() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.instances)
}
