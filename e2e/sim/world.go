package sim

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/node-agent/runtime/fake"
	proxyconfig "github.com/slipway-paas/slipway/services/proxy-config"
	"github.com/slipway-paas/slipway/services/scheduler"
)

// nodeLife is how long a heartbeat lasts.
const nodeLife = 10 * time.Second

// world is one run. What belongs to it is changed only by the goroutine that has
// just been let through, or by the world's own.
type world struct {
	plan  plan
	began time.Time

	log     *memory.Store
	desired *bucket[*nodev1.DesiredInstance]
	targets *bucket[*healthv1.Target]
	nodes   *bucket[*nodev1.Node]
	routes  *bucket[*routingv1.Route]
	keys    *keys

	machines []*machine
	parts    map[string]part
	procs    map[string]*proc
	all      []*proc
	commands sync.WaitGroup

	scheduler *scheduler.Service
	server    schedulerv1.SchedulerServiceServer
	admin     adminv1.AdminServiceServer
	proxy     *proxyconfig.Service
	edges     map[string]*edge

	mu      sync.Mutex
	calls   []*call
	agenda  []due
	names   map[string]string
	arrived chan struct{}

	seen  map[string]int
	once  map[string]int
	armed map[string]*crash
	steps int
	quiet bool

	// What the checks know.
	noted     uint64
	createOf  map[string]*item // by deployment
	numberOf  map[string]uint32
	idOf      map[int]string // deployment by create
	ownerOf   map[int]string
	truth     *truth
	answered  []answer
	schedDown time.Duration
	violation string
	lines     []string
	sum       uint64
}

type due struct {
	at   time.Time
	what string
	do   func()
}

type crash struct {
	calls      int
	answerLost bool
	down       time.Duration
}

// proc is one life of a part.
type proc struct {
	w          *world
	name       string
	ctx        context.Context
	cancel     context.CancelFunc
	done       chan struct{}
	dead       bool
	catchingUp bool
	machine    *machine
	failures   map[kind]int
	born       time.Time
}

// part is what runs under a name, life after life.
type part func(p *proc) func(ctx context.Context) error

type commandKey struct{}

var discard = slog.New(slog.DiscardHandler)

func newWorld(p plan, dir string) (*world, error) {
	w := &world{
		plan: p, began: time.Now(), log: memory.New(), parts: map[string]part{}, procs: map[string]*proc{}, edges: map[string]*edge{},
		names: map[string]string{}, arrived: make(chan struct{}, 1), seen: map[string]int{}, once: map[string]int{}, armed: map[string]*crash{},
		createOf: map[string]*item{}, numberOf: map[string]uint32{}, idOf: map[int]string{}, ownerOf: map[int]string{},
		desired: newBucket("desired", func() *nodev1.DesiredInstance { return &nodev1.DesiredInstance{} }, 0),
		targets: newBucket("instances", func() *healthv1.Target { return &healthv1.Target{} }, 0),
		nodes:   newBucket("nodes", func() *nodev1.Node { return &nodev1.Node{} }, nodeLife),
		routes:  newBucket("routes", func() *routingv1.Route { return &routingv1.Route{} }, 0),
		truth:   newTruth(),
		keys:    &keys{held: map[subjects.Aggregate]bool{}},
	}
	w.parts["scheduler"], w.parts["proxy"], w.parts["health"] = w.newScheduler, w.newProxy, w.newHealth
	for n := range p.nodes {
		m := &machine{Machine: fake.NewMachine(), id: fmt.Sprintf("n%d", n+1)}
		m.dir = filepath.Join(dir, m.id)
		if err := os.RemoveAll(m.dir); err != nil {
			return nil, err
		}
		for _, image := range []string{"good", "slow", "flaky"} {
			m.Push(imageRef(image), "one")
		}
		w.machines = append(w.machines, m)
		w.parts[m.id] = func(p *proc) func(context.Context) error { return w.newAgent(p, m) }
	}
	for n := range p.edges {
		w.parts[fmt.Sprintf("e%d", n+1)] = w.newEdge
	}
	for _, name := range sortedKeys(w.parts) {
		w.boot(name)
	}
	w.schedule(p.items)
	return w, nil
}

func imageRef(name string) string { return "registry.test/acme/" + name + ":v1" }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// boot begins the next life of a part. One that ends by itself is begun again.
func (w *world) boot(name string) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &proc{w: w, name: name, ctx: ctx, cancel: cancel, done: make(chan struct{}), catchingUp: true, failures: map[kind]int{}, born: time.Now()}
	w.procs[name] = p
	w.all = append(w.all, p)
	run := w.parts[name](p)
	go func() {
		defer close(p.done)
		err := run(ctx)
		w.mu.Lock()
		dead := p.dead
		w.mu.Unlock()
		if !dead {
			w.after(time.Second, fmt.Sprintf("%s ended by itself (%v) and is begun again", name, err), func() { w.bootAgain(name) })
		}
	}()
}

// kill ends a part's life wherever it is.
func (w *world) kill(name string) {
	p := w.procs[name]
	w.mu.Lock()
	p.dead = true
	w.mu.Unlock()
	delete(w.armed, name)
	p.cancel()
}

func (w *world) bootAgain(name string) {
	if p := w.procs[name]; !p.dead {
		select {
		case <-p.done:
		default:
			return
		}
		w.kill(name)
	}
	w.boot(name)
}

func (w *world) crash(name string, c *crash) {
	delete(w.armed, name)
	if w.procs[name].dead {
		return
	}
	w.note("%s crashes", name)
	w.kill(name)
	if name == "scheduler" {
		w.schedDown += c.down
	}
	w.after(c.down, name+" is begun again", func() { w.bootAgain(name) })
}

// after plans something; what an empty text says is not told.
func (w *world) after(d time.Duration, what string, do func()) {
	w.mu.Lock()
	w.agenda = append(w.agenda, due{at: time.Now().Add(d), what: what, do: do})
	w.mu.Unlock()
	w.poke()
}

// stop ends every part and waits until nothing runs.
func (w *world) stop() {
	for _, p := range w.all {
		w.mu.Lock()
		p.dead = true
		w.mu.Unlock()
		p.cancel()
	}
	for _, p := range w.all {
		<-p.done
	}
	w.commands.Wait()
	for _, m := range w.machines {
		for _, id := range sortedKeys(m.Containers()) {
			m.RemoveBehindBack(id)
		}
	}
}

// note adds a line to the story.
func (w *world) note(format string, args ...any) {
	if w.plan.traced {
		w.lines = append(w.lines, fmt.Sprintf("%7.2fs  %s", w.at().Seconds(), fmt.Sprintf(format, args...)))
	}
}

// trace sums the run up, so that two runs can be compared.
func (w *world) trace(c *call) {
	for _, b := range []byte(c.label) {
		w.sum = (w.sum ^ uint64(b)) * 1099511628211
	}
	w.sum = (w.sum ^ uint64(w.at())) * 1099511628211
	if w.plan.traced && (c.verdict.fail != nil || c.verdict.lost != nil || c.verdict.last) {
		w.note("     %s: fails %v, answer lost %v, last %v", c.label, c.verdict.fail, c.verdict.lost, c.verdict.last)
	}
	if w.plan.calls {
		w.lines = append(w.lines, fmt.Sprintf("%v %s", w.at(), c.label))
	}
}
