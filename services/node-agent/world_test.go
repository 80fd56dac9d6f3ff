package nodeagent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/view"
	nodeagent "github.com/slipway-paas/slipway/services/node-agent"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
	"github.com/slipway-paas/slipway/services/node-agent/runtime/fake"
)

const (
	image = "registry.test/acme/shop:v1"
	owner = "platform/node-1"
)

// world is everything around one agent, in virtual time.
type world struct {
	t       *testing.T
	dir     string
	machine *fake.Machine
	runtime runtime.Runtime
	desired *desired
	facts   *facts
	nodes   *nodes
	secrets *secrets

	agent *nodeagent.Service
	end   func()
}

// story runs in a bubble where time passes only when everybody waits.
func story(t *testing.T, tell func(w *world)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m := fake.NewMachine()
		w := &world{
			t: t, dir: dir, machine: m, runtime: m.Runtime(owner),
			desired: &desired{entries: map[string]*nodev1.DesiredInstance{}}, facts: &facts{seen: map[string]bool{}},
			nodes: &nodes{}, secrets: &secrets{},
		}
		m.Push(image, "one")
		w.startAgent()
		tell(w)
		w.endAgent()
	})
}

func (w *world) startAgent() {
	w.t.Helper()
	agent, err := nodeagent.New(
		nodeagent.Config{NodeID: "node-1", DataDir: w.dir, PruneAfter: 10 * time.Minute},
		nodeagent.Deps{
			Runtime: w.runtime, Desired: w.desired, Nodes: w.nodes, Facts: w.facts, Secrets: w.secrets,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	w.agent = agent
	w.end = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
	synctest.Wait()
}

func (w *world) endAgent() { w.end() }

func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wish makes an instance desired in that state, as changed.
func (w *world) wish(id string, state nodev1.DesiredState, change ...func(*nodev1.DesiredInstance)) {
	d := &nodev1.DesiredInstance{
		OrgId: "acme", DeploymentId: "shop", ReleaseId: "r1", InstanceId: id, NodeId: "node-1",
		ContainerName: "shop-" + id, Image: image, Port: 3000, MemoryLimitMb: 256, CpuLimitMillicores: 250,
		DesiredState: state,
		Deadlines: &deploymentv1.Deadlines{
			Drain: durationpb.New(5 * time.Second), Grace: durationpb.New(10 * time.Second),
		},
	}
	for _, c := range change {
		c(d)
	}
	w.desired.put("node-1."+id, d)
	synctest.Wait()
}

func (w *world) run(id string, change ...func(*nodev1.DesiredInstance)) {
	w.wish(id, nodev1.DesiredState_DESIRED_STATE_RUNNING, change...)
}

// told are the facts recorded since the last call, one line each.
func (w *world) told() string {
	synctest.Wait()
	return strings.Join(w.facts.take(), "\n")
}

func (w *world) expect(lines ...string) {
	w.t.Helper()
	if got, want := w.told(), strings.Join(lines, "\n"); got != want {
		w.t.Fatalf("recorded:\n%s\nwanted:\n%s", got, want)
	}
}

// container is the id of the one container there is.
func (w *world) container() string {
	w.t.Helper()
	all := w.machine.Containers()
	if len(all) != 1 {
		w.t.Fatalf("there are %d containers: %v", len(all), all)
	}
	for id := range all {
		return id
	}
	return ""
}

func (w *world) running() int {
	n := 0
	for _, c := range w.machine.Containers() {
		if c.State == runtime.StateRunning {
			n++
		}
	}
	return n
}

// line says a fact in short.
func line(e eventstore.Event) string {
	switch f := e.Payload.(type) {
	case *deploymentv1.ImagePulled:
		return "ImagePulled " + f.GetInstanceId()
	case *deploymentv1.ImagePullFailed:
		return fmt.Sprintf("ImagePullFailed %s attempt %d final %v", f.GetInstanceId(), f.GetAttempt(), f.GetFinal())
	case *deploymentv1.ContainerStarted:
		return fmt.Sprintf("ContainerStarted %s attempt %d", f.GetInstanceId(), f.GetAttempt())
	case *deploymentv1.ContainerStartFailed:
		return fmt.Sprintf("ContainerStartFailed %s attempt %d", f.GetInstanceId(), f.GetAttempt())
	case *deploymentv1.ContainerExited:
		restart := "stays down"
		if f.GetRestartAt() != nil {
			restart = "restart in " + f.GetRestartAt().AsTime().Sub(f.GetExitedAt().AsTime()).String()
		}
		return fmt.Sprintf("ContainerExited %s attempt %d code %d oom %v %s", f.GetInstanceId(), f.GetAttempt(), f.GetExitCode(), f.GetOomKilled(), restart)
	case *deploymentv1.ContainerRemoved:
		return "ContainerRemoved " + f.GetInstanceId()
	}
	return e.Type()
}

// facts is a log that keeps each id once, and can be away.
type facts struct {
	mu   sync.Mutex
	down bool
	seen map[string]bool
	new  []eventstore.Event
	all  []eventstore.Event
}

func (f *facts) Record(_ context.Context, e eventstore.Event) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return 0, eventstore.ErrUnavailable
	}
	if !f.seen[e.ID] {
		f.seen[e.ID] = true
		f.new, f.all = append(f.new, e), append(f.all, e)
	}
	return uint64(len(f.all)), nil
}

func (f *facts) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for _, e := range f.new {
		lines = append(lines, line(e))
	}
	f.new = nil
	return lines
}

// forget makes the log forget which ids it has: it remembers them for two minutes.
func (f *facts) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.seen)
}

func (f *facts) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func (f *facts) last() eventstore.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all[len(f.all)-1]
}

// desired is a bucket of wishes.
type desired struct {
	mu       sync.Mutex
	entries  map[string]*nodev1.DesiredInstance
	watchers []chan view.Change[*nodev1.DesiredInstance]
}

func change(key string, d *nodev1.DesiredInstance) view.Change[*nodev1.DesiredInstance] {
	c := view.Change[*nodev1.DesiredInstance]{Deleted: d == nil}
	c.Key, c.Value = key, d
	return c
}

func (d *desired) put(key string, value *nodev1.DesiredInstance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if value == nil {
		delete(d.entries, key)
	} else {
		d.entries[key] = value
	}
	for _, w := range d.watchers {
		w <- change(key, value)
	}
}

func (d *desired) drop(id string) { d.put("node-1."+id, nil) }

func (d *desired) Watch(ctx context.Context, _ string, handle func(context.Context, view.Change[*nodev1.DesiredInstance]) error, ready func()) error {
	changes := make(chan view.Change[*nodev1.DesiredInstance], 1024)
	d.mu.Lock()
	snapshot := maps.Clone(d.entries)
	d.watchers = append(d.watchers, changes)
	d.mu.Unlock()
	for key, value := range snapshot {
		if err := handle(ctx, change(key, value)); err != nil {
			return err
		}
	}
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-changes:
			if err := handle(ctx, c); err != nil {
				return err
			}
		}
	}
}

func (d *desired) Get(_ context.Context, key string) (view.Entry[*nodev1.DesiredInstance], bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	value, ok := d.entries[key]
	return view.Entry[*nodev1.DesiredInstance]{Key: key, Value: value}, ok, nil
}

// nodes takes heartbeats.
type nodes struct {
	mu    sync.Mutex
	beats []*nodev1.Node
}

func (n *nodes) Put(_ context.Context, _ string, node *nodev1.Node) (uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.beats = append(n.beats, proto.CloneOf(node))
	return uint64(len(n.beats)), nil
}

func (n *nodes) seen() []*nodev1.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.beats
}

// secrets answers with what it holds.
type secrets struct {
	mu     sync.Mutex
	env    map[string]string
	err    error
	refuse bool
}

func (s *secrets) Env(context.Context, string, string) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse {
		return nil, fmt.Errorf("%w: not this node's", nodeagent.ErrSecretsRefused)
	}
	return s.env, s.err
}

func (s *secrets) set(env map[string]string, err error, refuse bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.env, s.err, s.refuse = env, err, refuse
}

var errAway = errors.New("nobody answers")
