package sim

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing/synctest"
	"time"
)

// tick is the grain of time: a call that waits is looked at when the next one
// begins. It is coarser than the jitter of the parts' short back-offs, which is
// therefore invisible.
const tick = 250 * time.Millisecond

// kind is what a call does, as far as faults differ.
type kind string

const (
	kindCommand  kind = "command"
	kindAppend   kind = "append"
	kindRecord   kind = "record"
	kindLoad     kind = "load"
	kindFollow   kind = "follow"
	kindPut      kind = "put"
	kindRead     kind = "read"
	kindWatch    kind = "watch"
	kindAck      kind = "ack"
	kindBeat     kind = "beat"
	kindProbe    kind = "probe"
	kindSecrets  kind = "secrets"
	kindKeys     kind = "keys"
	kindTurn     kind = "turn"
	kindRuntime  kind = "runtime"
	kindCreate   kind = "create"
	kindPull     kind = "pull"
	kindSlowPull kind = "slow pull"
)

// errDead is what a part gets from the world once it has crashed.
var errDead = errors.New("crashed")

// verdict is what becomes of a call.
type verdict struct {
	// fail keeps the call from being made, lost loses its answer.
	fail, lost error
	// linger is how long the answer takes.
	linger time.Duration
	// last is true when the part crashes before it has the answer.
	last bool
	// again is after how long the message comes a second time; 0 for never.
	again time.Duration
	// together hands over all that waits, the last value of each key.
	together bool
}

// call is one step of a part that waits to be let through.
type call struct {
	p     *proc
	kind  kind
	label string
	// after is how long it takes, for an answer.
	after    time.Duration
	admitted bool
	ready    time.Time
	order    uint64
	verdict  verdict
	release  chan verdict
}

// do lets the part make one call: it waits for its turn, then effect happens, alone.
func (p *proc) do(ctx context.Context, k kind, what string, effect func(v verdict) error) error {
	if who, ok := ctx.Value(commandKey{}).(string); ok {
		what = who + " " + what
	}
	c := &call{p: p, kind: k, label: p.name + " " + string(k) + " " + what, release: make(chan verdict, 1)}
	if !p.w.enter(c) {
		return errDead
	}
	given := ctx.Done()
	if k == kindRecord {
		// A fact stays under way whatever its writer's patience.
		given = nil
	}
	var v verdict
	select {
	case v = <-c.release:
	case <-given:
		p.w.leave(c)
		return ctx.Err()
	case <-p.ctx.Done():
		p.w.leave(c)
		return errDead
	}
	if v.fail != nil {
		return v.fail
	}
	err := effect(v)
	if v.last {
		<-p.ctx.Done()
		return errDead
	}
	if v.linger > 0 {
		if waited := p.answer(c, v.linger); waited != nil {
			return waited
		}
	}
	if err == nil && v.lost != nil {
		return v.lost
	}
	return err
}

// answer is the way back of a call that was let through.
func (p *proc) answer(to *call, after time.Duration) error {
	c := &call{p: p, kind: to.kind, label: to.label + " answered", after: after, release: make(chan verdict, 1)}
	if !p.w.enter(c) {
		return errDead
	}
	select {
	case <-c.release:
		return nil
	case <-p.ctx.Done():
		p.w.leave(c)
		return errDead
	}
}

// enter returns false when the part is dead.
func (w *world) enter(c *call) bool {
	w.mu.Lock()
	if c.p.dead {
		w.mu.Unlock()
		return false
	}
	w.calls = append(w.calls, c)
	w.mu.Unlock()
	w.poke()
	return true
}

func (w *world) leave(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = slices.DeleteFunc(w.calls, func(o *call) bool { return o == c })
}

func (w *world) poke() {
	select {
	case w.arrived <- struct{}{}:
	default:
	}
}

// run lets the world go on until then, or until something is wrong.
func (w *world) run(until time.Time) {
	for {
		synctest.Wait()
		now := time.Now()
		if rest := now.Sub(w.began) % tick; rest != 0 {
			time.Sleep(tick - rest)
			continue
		}
		if w.failed() || !now.Before(until) {
			return
		}
		w.nodes.expire(now)
		if w.due(now) {
			continue
		}
		if c := w.next(now); c != nil {
			w.fire(c)
			continue
		}
		w.sleep(now, until)
	}
}

// sleep waits until a call comes, or one becomes ready, or something is planned.
func (w *world) sleep(now, until time.Time) {
	next := until
	earlier := func(t time.Time) {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	w.mu.Lock()
	for _, c := range w.calls {
		if !w.blocked(c) {
			earlier(c.ready)
		}
	}
	for _, d := range w.agenda {
		earlier(d.at)
	}
	w.mu.Unlock()
	earlier(w.nodes.nextExpiry())
	timer := time.NewTimer(next.Sub(now))
	defer timer.Stop()
	select {
	case <-w.arrived:
	case <-timer.C:
	}
}

// due does what is planned for now, the earliest first, and reports whether it did.
func (w *world) due(now time.Time) bool {
	w.mu.Lock()
	best := -1
	for i, d := range w.agenda {
		if d.at.After(now) {
			continue
		}
		if best < 0 || d.at.Before(w.agenda[best].at) || d.at.Equal(w.agenda[best].at) && d.what < w.agenda[best].what {
			best = i
		}
	}
	if best < 0 {
		w.mu.Unlock()
		return false
	}
	d := w.agenda[best]
	w.agenda = slices.Delete(w.agenda, best, best+1)
	w.mu.Unlock()
	if d.what != "" {
		w.note("%s", d.what)
	}
	d.do()
	return true
}

// next admits the calls that have come and picks the one that goes first.
func (w *world) next(now time.Time) *call {
	w.mu.Lock()
	defer w.mu.Unlock()
	var fresh []*call
	for _, c := range w.calls {
		if !c.admitted {
			fresh = append(fresh, c)
		}
	}
	slices.SortStableFunc(fresh, func(a, b *call) int { return strings.Compare(a.label, b.label) })
	for _, c := range fresh {
		w.admit(c, now)
	}
	var first *call
	for _, c := range w.calls {
		if c.ready.After(now) || w.blocked(c) {
			continue
		}
		if first == nil || c.order < first.order || c.order == first.order && c.label < first.label {
			first = c
		}
	}
	if first != nil {
		w.calls = slices.DeleteFunc(w.calls, func(o *call) bool { return o == first })
	}
	return first
}

// blocked calls cannot go through the network.
func (w *world) blocked(c *call) bool {
	switch c.kind {
	case kindTurn, kindRuntime, kindCreate, kindPull, kindSlowPull:
		return false
	}
	return c.p.machine != nil && c.p.machine.away
}

// fire lets a call through; crashes that wait for one happen here.
func (w *world) fire(c *call) {
	crash, armed := w.armed[c.p.name]
	if armed && crash.calls > 0 {
		crash.calls--
		armed = false
	}
	if armed && !crash.answerLost {
		w.crash(c.p.name, crash)
		return
	}
	w.steps++
	w.trace(c)
	c.verdict.last = armed
	c.release <- c.verdict
	if armed {
		synctest.Wait()
		w.crash(c.p.name, crash)
	}
}

func (w *world) admit(c *call, now time.Time) {
	w.seen[c.label]++
	r := w.dice(c.label, w.seen[c.label])
	c.admitted, c.order, c.ready = true, r.Uint64(), now.Add(c.after)
	if c.after > 0 {
		return
	}
	if w.quiet && c.kind != kindSlowPull {
		return
	}
	c.ready = now.Add(w.delay(c.kind, r))
	w.faults(c, r)
	if c.verdict.fail != nil || c.verdict.lost != nil {
		// Only so often in a row: the jitter of later back-offs would show.
		if c.p.failures[c.kind]++; c.p.failures[c.kind] > 2 {
			c.p.failures[c.kind] = 0
			c.verdict.fail, c.verdict.lost = nil, nil
		}
	} else {
		c.p.failures[c.kind] = 0
	}
}

// dice are a label's own, so that a change elsewhere in the plan does not shake them.
func (w *world) dice(label string, n int) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(label))
	return rand.New(rand.NewPCG(w.plan.seed, h.Sum64()+uint64(n)*0x9e3779b97f4a7c15))
}
