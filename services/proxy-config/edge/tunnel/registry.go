package tunnel

import (
	"sync"
	"time"
)

// Registry knows the open tunnels, and when each one's instance has left its route.
// It is safe for concurrent use.
type Registry struct {
	// serves reports whether the instance is in the host's route, and how long its
	// tunnels may go on once it is not; 0 when the route does not say.
	serves func(host, address string) (yes bool, drain time.Duration)
	drain  time.Duration

	mu     sync.Mutex
	byHost map[string]map[*Tunnel]struct{}
	open   int
	ended  uint64
}

// Tunnel is one entry of the registry.
type Tunnel struct {
	registry      *Registry
	host, address string
	drain         time.Duration
	end           func()
	timer         *time.Timer // nil while the instance is in the route
	over          bool
}

// NewRegistry returns an empty one. drain is for routes that do not say their own.
func NewRegistry(serves func(host, address string) (bool, time.Duration), drain time.Duration) *Registry {
	return &Registry{serves: serves, drain: drain, byHost: map[string]map[*Tunnel]struct{}{}}
}

// Add notes a tunnel of the host to the instance at the address. end is called at
// most once, must not block, and must make the tunnel end; Close must follow in any case.
func (r *Registry) Add(host, address string, drain time.Duration, end func()) *Tunnel {
	t := &Tunnel{registry: r, host: host, address: address, drain: drain, end: end}
	r.mu.Lock()
	if r.byHost[host] == nil {
		r.byHost[host] = map[*Tunnel]struct{}{}
	}
	r.byHost[host][t] = struct{}{}
	r.open++
	r.mu.Unlock()
	// The route may have changed since it was read.
	r.Changed(host)
	return t
}

// Close forgets the tunnel.
func (t *Tunnel) Close() {
	r := t.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.over {
		return
	}
	r.forget(t)
}

// Changed looks at the tunnels of a host whose route may have changed.
func (r *Registry) Changed(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for t := range r.byHost[host] {
		r.look(t)
	}
}

// look starts the drain of a tunnel whose instance left, and stops it when the
// instance came back.
func (r *Registry) look(t *Tunnel) {
	yes, drain := r.serves(t.host, t.address)
	switch {
	case yes && t.timer != nil:
		t.timer.Stop()
		t.timer = nil
	case !yes && t.timer == nil:
		t.timer = time.AfterFunc(r.patience(drain, t.drain), func() { r.due(t) })
	}
}

// patience is shorter than the drain: the goodbye is over when the instance is told
// to go.
func (r *Registry) patience(now, atOpening time.Duration) time.Duration {
	drain := r.drain
	if now > 0 {
		drain = now
	} else if atOpening > 0 {
		drain = atOpening
	}
	return drain - min(goodbye, drain/4)
}

func (r *Registry) due(t *Tunnel) {
	r.mu.Lock()
	yes, _ := r.serves(t.host, t.address)
	if t.over || t.timer == nil || yes {
		r.mu.Unlock()
		return
	}
	r.forget(t)
	r.ended++
	r.mu.Unlock()
	t.end()
}

// EndAll ends every tunnel now.
func (r *Registry) EndAll() {
	r.mu.Lock()
	var all []*Tunnel
	for _, tunnels := range r.byHost {
		for t := range tunnels {
			all = append(all, t)
		}
	}
	for _, t := range all {
		r.forget(t)
	}
	r.mu.Unlock()
	for _, t := range all {
		t.end()
	}
}

// Open is the number of open tunnels, Ended that of those whose instance's drain was over.
func (r *Registry) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// Ended counts the tunnels that were ended because their instance had left.
func (r *Registry) Ended() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

func (r *Registry) forget(t *Tunnel) {
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
	}
	delete(r.byHost[t.host], t)
	if len(r.byHost[t.host]) == 0 {
		delete(r.byHost, t.host)
	}
	r.open--
}
