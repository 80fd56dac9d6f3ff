package domains

import (
	"sync"
	"time"

	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

// plan is when each domain is looked at next. It follows from the log: whatever it
// forgets with the process comes back with the fold.
type plan struct {
	mu   sync.Mutex
	due  map[subjects.Aggregate]*due
	wake chan struct{}
}

type due struct {
	at time.Time
	// served and since are of the state that the times were made from.
	served bool
	since  time.Time
	// attempts are the looks since then.
	attempts uint32
	// astray is since when a verified domain has not led here; zero while it does.
	astray  time.Time
	running bool
}

func newPlan() *plan {
	return &plan{due: map[subjects.Aggregate]*due{}, wake: make(chan struct{}, 1)}
}

// set plans for a domain as it is now.
func (p *plan) set(a subjects.Aggregate, s domain.State, live bool, now time.Time, recheck time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !live || !s.Served() && !s.Awaited() {
		delete(p.due, a)
		return
	}
	old := p.due[a]
	if old != nil && old.served == s.Served() && old.since.Equal(s.Since) {
		return
	}
	fresh := &due{at: now, served: s.Served(), since: s.Since}
	if s.Served() {
		fresh.at = domain.Recheck(s, now, recheck)
	}
	if old != nil {
		fresh.running = old.running
	}
	p.due[a] = fresh
	p.poke()
}

// take returns the domains that are due, at most most of them, and when the next one is.
// They are not due again before done.
func (p *plan) take(now time.Time, most int) (out []subjects.Aggregate, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, d := range p.due {
		switch {
		case d.running:
		case !d.at.After(now) && len(out) < most:
			d.running = true
			out = append(out, a)
		case next.IsZero() || d.at.Before(next):
			next = d.at
		}
	}
	return out, next
}

// done plans the next look; at is zero for none.
func (p *plan) done(a subjects.Aggregate, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.due[a]; d != nil {
		d.running = false
		switch {
		case at.IsZero():
			delete(p.due, a)
		case d.at.Before(at):
			d.at = at
		}
	}
	p.poke()
}

// soon plans the next look for that time, if there is one.
func (p *plan) soon(a subjects.Aggregate, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.due[a]; d != nil && d.at.After(at) {
		d.at = at
	}
	p.poke()
}

// looked counts a look.
func (p *plan) looked(a subjects.Aggregate) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.due[a]
	if d == nil {
		return 1
	}
	d.attempts++
	return d.attempts
}

// strays notes whether a verified domain leads here, and returns since when it does not.
func (p *plan) strays(a subjects.Aggregate, astray bool, now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.due[a]
	if d == nil {
		return now
	}
	switch {
	case !astray:
		d.astray = time.Time{}
	case d.astray.IsZero():
		d.astray = now
	}
	return d.astray
}

// next is when a domain is looked at next; zero for never.
func (p *plan) next(a subjects.Aggregate) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.due[a]; d != nil {
		return d.at
	}
	return time.Time{}
}

func (p *plan) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
