package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/node-agent/runtime/fake"
)

// app is how a release's container behaves.
type app string

const (
	serves  app = "serves"
	late    app = "late"    // answers after 4 s
	sick    app = "sick"    // never answers
	exits   app = "exits"   // ends after 1 s, every time
	weary   app = "weary"   // answers, and ends after 25 s, every time
	wobbles app = "wobbles" // answers 12 s, does not for 9 s, and so on
)

// item is one thing that happens in a run: a command or a fault.
type item struct {
	at   time.Duration
	what string
	// who is the part, node or operator it happens to or through.
	who string
	// of is which create's deployment it is about.
	of int
	// id names a command.
	id string
	// for creates
	subdomain, custom, image string
	apps                     []app
	stubborn                 bool
	// count is how many instances a scale asks for.
	count int64
	// for faults
	lasts      time.Duration
	calls      int
	answerLost bool
}

func (i item) String() string {
	s := fmt.Sprintf("%7.2fs %s", i.at.Seconds(), i.what)
	if i.id != "" {
		s += " " + i.id
	}
	switch i.what {
	case "create":
		return s + fmt.Sprintf(" c%d by %s: subdomain %s, custom domain %q, image %s, releases that %v, stubborn %v", i.of, i.who, i.subdomain, i.custom, i.image, i.apps, i.stubborn)
	case "restart", "rollback", "stop", "destroy":
		return s + fmt.Sprintf(" of c%d", i.of)
	case "scale":
		return s + fmt.Sprintf(" of c%d to %d", i.of, i.count)
	case "kill", "remove by hand":
		return s + fmt.Sprintf(" container of c%d", i.of)
	case "crash":
		return s + fmt.Sprintf(" %s, %d calls later, answer lost %v, down %s", i.who, i.calls, i.answerLost, i.lasts)
	}
	switch i.what {
	case "lose":
		return s + " " + i.who + " for good"
	case "drain", "uncordon":
		return s + " " + i.who
	}
	return s + fmt.Sprintf(" %s for %s", i.who, i.lasts)
}

// noise is what goes wrong at random, by class; a class can be left out.
type noise struct {
	delays, log, conflicts, copies, views, runtime bool
}

// plan is a whole run but for the noise's dice.
type plan struct {
	seed  uint64
	nodes int
	room  uint32 // MB of each node; an instance takes 256
	edges int
	noise noise
	chaos time.Duration
	items []item
	// traced runs tell their story; with calls every call is told, to find where two
	// runs of a seed part.
	traced, calls bool
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func (p plan) node(r *rand.Rand) string { return fmt.Sprintf("n%d", 1+r.IntN(p.nodes)) }

func newPlan(seed uint64) plan {
	r := rand.New(rand.NewPCG(seed, 0))
	p := plan{seed: seed, nodes: 1 + r.IntN(3), room: pick(r, uint32(512), 768, 1024, 4096), edges: 1 + r.IntN(2),
		chaos: time.Duration(40+r.IntN(40)) * time.Second}
	chance := func(of float64) bool { return r.Float64() < of }
	p.noise = noise{delays: chance(.8), log: chance(.7), conflicts: chance(.6), copies: chance(.6), views: chance(.7), runtime: chance(.6)}
	when := func() time.Duration { return time.Duration(r.Int64N(int64(p.chaos/tick))) * tick }
	creates := 1 + r.IntN(6)
	for n := range creates {
		i := item{what: "create", of: n, who: fmt.Sprintf("op%d", 1+r.IntN(3)), at: (when() / 2).Truncate(tick),
			subdomain: pick(r, "shop", "blog", "wiki", "chat"), image: pick(r, "good", "good", "good", "good", "slow", "missing", "flaky"),
			stubborn: chance(.1)}
		if chance(.2) {
			i.custom = pick(r, "shop.example.com", "www.example.org")
		}
		for range 3 {
			i.apps = append(i.apps, pick(r, serves, serves, serves, serves, late, sick, exits, weary, wobbles))
		}
		p.items = append(p.items, i)
		for range r.IntN(4) {
			p.items = append(p.items, item{what: pick(r, "restart", "restart", "restart", "scale", "scale", "scale", "rollback", "stop", "destroy"), of: n,
				at: i.at + (when() / 2).Truncate(tick), who: fmt.Sprintf("op%d", 1+r.IntN(3)), count: int64(1 + r.IntN(3))})
		}
		for range r.IntN(2) {
			p.items = append(p.items, item{what: pick(r, "kill", "kill", "remove by hand"), of: n, at: i.at + (when() / 2).Truncate(tick)})
		}
	}
	for range r.IntN(7) {
		i := item{what: "crash", at: when(), calls: r.IntN(6), answerLost: chance(.5), lasts: time.Duration(1+r.IntN(16)) * tick,
			who: pick(r, "scheduler", "scheduler", "proxy", "health", p.node(r), p.node(r), fmt.Sprintf("e%d", 1+r.IntN(p.edges)))}
		p.items = append(p.items, i)
	}
	for range r.IntN(3) {
		p.items = append(p.items, item{what: pick(r, "partition", "reboot", "break events", "registry down"), who: p.node(r), at: when(),
			lasts: time.Duration(1+r.IntN(40)) * time.Second})
	}
	if p.nodes > 1 && chance(.3) {
		i := item{what: "drain", who: p.node(r), at: when()}
		p.items = append(p.items, i)
		if chance(.5) {
			i.what, i.at = "uncordon", i.at+(when()/2).Truncate(tick)
			p.items = append(p.items, i)
		}
	}
	if p.nodes > 1 && chance(.15) {
		p.items = append(p.items, item{what: "lose", who: p.node(r), at: when()})
	}
	slices.SortStableFunc(p.items, func(a, b item) int { return int(a.at - b.at) })
	for n := range p.items {
		switch p.items[n].what {
		case "create", "restart", "scale", "rollback", "stop", "destroy":
			p.items[n].id = fmt.Sprintf("cmd-%d", n)
		}
	}
	return p
}

// delay is how long a call of that kind waits.
func (w *world) delay(k kind, r *rand.Rand) time.Duration {
	if k == kindSlowPull {
		return time.Duration(4+r.IntN(40)) * tick
	}
	dice, ticks := r.Float64(), r.IntN(100)
	if !w.plan.noise.delays || dice > .15 {
		return 0
	}
	most := 3
	switch k {
	case kindAck, kindProbe:
		most = 1
	case kindFollow, kindWatch, kindPull, kindRecord:
		most = 10
	}
	return time.Duration(1+ticks%most) * tick
}

// faults decides what becomes of a call, in busy times.
func (w *world) faults(c *call, r *rand.Rand) {
	n, dice, v := w.plan.noise, r.Float64(), &c.verdict
	// An acknowledgement is a message: nobody waits for its answer.
	if n.delays && r.Float64() < .03 && c.kind != kindAck {
		v.linger = time.Duration(1+r.IntN(6)) * tick
	}
	spoil := func(on bool, of float64, err error) {
		if !on {
			return
		}
		switch {
		case dice < of/2:
			v.fail = err
		case dice < of:
			v.lost = err
		}
	}
	switch c.kind {
	case kindAppend:
		spoil(n.log, .06, eventstore.ErrUnavailable)
		if n.conflicts && dice > .95 {
			v.fail = eventstore.ErrConflict
		}
	case kindRecord:
		spoil(n.log, .06, eventstore.ErrUnavailable)
		if n.copies && dice > .94 {
			v.again = time.Duration(1+r.IntN(60)) * tick
		}
	case kindLoad:
		spoil(n.log, .02, eventstore.ErrUnavailable)
	case kindPut, kindRead, kindBeat:
		spoil(n.views, .04, view.ErrUnavailable)
	case kindWatch:
		v.together = n.views && dice < .2
	case kindSecrets:
		spoil(n.runtime, .06, errAway)
	case kindKeys:
		spoil(n.log, .1, errAway)
	case kindRuntime:
		spoil(n.runtime, .02, fake.ErrInjected)
	case kindCreate:
		spoil(n.runtime, .08, fake.ErrInjected)
	case kindPull, kindSlowPull:
		spoil(n.runtime, .1, fake.ErrInjected)
	}
}
