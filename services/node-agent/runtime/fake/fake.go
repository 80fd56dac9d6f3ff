// Package fake is a runtime in memory, for tests and simulations: containers take no
// resources, images come from a pretended registry, and everything can be made to
// fail. It uses only the time package's clock, so it runs in synctest's bubbles.
package fake

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// Machine is what runtimes of several owners share: containers, images, a registry.
// Containers behave as the variable MODE in their environment says:
//
//	serve     (default) run until SIGTERM, then end with 0
//	stubborn  run, and ignore SIGTERM
//	exit      print LINES lines and end with CODE, AFTER a duration (default at once)
//	oom       end by the memory limit at once
type Machine struct {
	mu         sync.Mutex
	containers map[string]*container
	images     map[string]runtime.Image      // by id
	registry   map[string]string             // reference -> digest
	listeners  map[chan runtime.Event]string // -> owner
	faults     Faults
	serial     int
}

// Faults is what goes wrong, and for how often. The zero value is a good day.
type Faults struct {
	// RegistryDown makes pulls that need the registry fail as unavailable.
	RegistryDown bool
	// Down makes every call fail, as when Podman's service is dead.
	Down bool
	// Hangs makes every call wait for the end of its context, as when Podman's service
	// takes requests and never answers.
	Hangs bool
	// PullDelay is how long each pull takes.
	PullDelay time.Duration
	// FailPulls, FailCreates and FailStarts are how many of the next calls fail.
	FailPulls, FailCreates, FailStarts int
}

// ErrInjected is what an injected fault fails with.
var ErrInjected = errors.New("injected fault")

type container struct {
	runtime.Container
	owner  string
	serial int
	spec   runtime.Spec
	output strings.Builder
	ended  chan struct{}
	timer  *time.Timer
}

// NewMachine makes an empty one.
func NewMachine() *Machine {
	return &Machine{
		containers: map[string]*container{}, images: map[string]runtime.Image{},
		registry: map[string]string{}, listeners: map[chan runtime.Event]string{},
	}
}

// Push makes an image available as reference; another variant is another image.
func (m *Machine) Push(reference, variant string) (digest string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(runtime.Repository(reference)+variant)))
	m.registry[reference] = digest
	m.registry[runtime.Repository(reference)+"@"+digest] = digest
	return digest
}

// SetFaults replaces what goes wrong from now on.
func (m *Machine) SetFaults(f Faults) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = f
}

// Crash ends a running container with the code, as if its process did.
func (m *Machine) Crash(id string, code int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.containers[id]; c != nil {
		m.end(c, code, false)
	}
}

// Say has a container write text.
func (m *Machine) Say(id, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.containers[id]; c != nil {
		c.output.WriteString(text)
	}
}

// RemoveBehindBack removes a container as a person at the machine would.
func (m *Machine) RemoveBehindBack(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.containers[id]; c != nil {
		m.drop(c)
	}
}

// BreakEvents ends every event stream, as when Podman's service dies.
func (m *Machine) BreakEvents() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ch := range m.listeners {
		delete(m.listeners, ch)
		close(ch)
	}
}

// Containers returns every owner's containers, by id.
func (m *Machine) Containers() map[string]runtime.Container {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]runtime.Container{}
	for id, c := range m.containers {
		all[id] = c.Container
	}
	return all
}

// Env returns what a container was made with.
func (m *Machine) Env(id string) map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.containers[id]; c != nil {
		return maps.Clone(c.spec.Env)
	}
	return nil
}

// Runtime is one owner's view of the machine.
func (m *Machine) Runtime(owner string) *Runtime { return &Runtime{machine: m, owner: owner} }

func (m *Machine) emit(kind runtime.EventType, c *container) {
	event := runtime.Event{Type: kind, ContainerID: c.ID, Labels: maps.Clone(c.Labels), At: time.Now()}
	for ch, owner := range m.listeners {
		if owner != c.owner {
			continue
		}
		select {
		case ch <- event:
		default: // a listener that does not listen loses its stream, and lists anew
			delete(m.listeners, ch)
			close(ch)
		}
	}
}

func (m *Machine) end(c *container, code int, oom bool) {
	if c.State != runtime.StateRunning {
		return
	}
	c.State, c.ExitCode, c.OOMKilled, c.FinishedAt, c.Address = runtime.StateExited, code, oom, time.Now(), ""
	if c.timer != nil {
		c.timer.Stop()
	}
	close(c.ended)
	m.emit(runtime.EventDied, c)
}

func (m *Machine) drop(c *container) {
	m.end(c, 137, false)
	delete(m.containers, c.ID)
	m.emit(runtime.EventRemoved, c)
}

func (m *Machine) begin(c *container) {
	c.State, c.StartedAt = runtime.StateRunning, time.Now()
	c.Address = fmt.Sprintf("10.0.%d.%d:%d", c.serial/250, c.serial%250+1, c.spec.Port)
	c.ended = make(chan struct{})
	c.output.WriteString("listening\n")
	m.emit(runtime.EventStarted, c)
	later := func(after time.Duration, code int, oom bool) {
		c.timer = time.AfterFunc(after, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.end(c, code, oom)
		})
	}
	switch c.spec.Env["MODE"] {
	case "exit":
		lines, _ := strconv.Atoi(c.spec.Env["LINES"])
		for i := range lines {
			fmt.Fprintf(&c.output, "line %d\n", i+1)
		}
		code, _ := strconv.Atoi(c.spec.Env["CODE"])
		after, _ := time.ParseDuration(c.spec.Env["AFTER"])
		later(after, code, false)
	case "oom":
		later(0, 137, true)
	}
}

// Runtime implements runtime.Runtime.
type Runtime struct {
	machine *Machine
	owner   string
}

var _ runtime.Runtime = (*Runtime)(nil)

// enter locks the machine and counts the fault down; the caller unlocks unless it fails.
func (r *Runtime) enter(ctx context.Context, fault *int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.machine.mu.Lock()
	if r.machine.faults.Hangs {
		r.machine.mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	}
	if r.machine.faults.Down {
		r.machine.mu.Unlock()
		return ErrInjected
	}
	if fault != nil && *fault > 0 {
		*fault--
		r.machine.mu.Unlock()
		return ErrInjected
	}
	return nil
}

func (r *Runtime) find(id string) (*container, error) {
	if c := r.machine.containers[id]; c != nil && c.owner == r.owner {
		return c, nil
	}
	return nil, runtime.ErrNotFound
}

// Info implements runtime.Runtime.
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	if err := r.enter(ctx, nil); err != nil {
		return runtime.Info{}, err
	}
	defer r.machine.mu.Unlock()
	return runtime.Info{Name: "fake", Host: "fake", MemoryBytes: 8 << 30, CPUMillicores: 4000}, nil
}

// Ping implements runtime.Runtime.
func (r *Runtime) Ping(ctx context.Context) error {
	if err := r.enter(ctx, nil); err != nil {
		return err
	}
	r.machine.mu.Unlock()
	return nil
}

// List implements runtime.Runtime.
func (r *Runtime) List(ctx context.Context) ([]runtime.Container, error) {
	if err := r.enter(ctx, nil); err != nil {
		return nil, err
	}
	defer r.machine.mu.Unlock()
	var list []runtime.Container
	for _, c := range r.machine.containers {
		if c.owner == r.owner {
			list = append(list, runtime.Container{
				ID: c.ID, Name: c.Name, ImageID: c.ImageID, State: c.State, Labels: maps.Clone(c.Labels),
			})
		}
	}
	return list, nil
}

// Inspect implements runtime.Runtime.
func (r *Runtime) Inspect(ctx context.Context, id string) (runtime.Container, error) {
	if err := r.enter(ctx, nil); err != nil {
		return runtime.Container{}, err
	}
	defer r.machine.mu.Unlock()
	c, err := r.find(id)
	if err != nil {
		return runtime.Container{}, err
	}
	copied := c.Container
	copied.Labels = maps.Clone(c.Labels)
	return copied, nil
}

// Events implements runtime.Runtime.
func (r *Runtime) Events(ctx context.Context) (<-chan runtime.Event, error) {
	if err := r.enter(ctx, nil); err != nil {
		return nil, err
	}
	defer r.machine.mu.Unlock()
	ch := make(chan runtime.Event, 1024)
	r.machine.listeners[ch] = r.owner
	context.AfterFunc(ctx, func() {
		r.machine.mu.Lock()
		defer r.machine.mu.Unlock()
		if _, open := r.machine.listeners[ch]; open {
			delete(r.machine.listeners, ch)
			close(ch)
		}
	})
	return ch, nil
}

// Tail implements runtime.Runtime.
func (r *Runtime) Tail(ctx context.Context, id string, maxBytes int) (runtime.Output, error) {
	if err := r.enter(ctx, nil); err != nil {
		return runtime.Output{}, err
	}
	defer r.machine.mu.Unlock()
	c, err := r.find(id)
	if err != nil {
		return runtime.Output{}, err
	}
	return runtime.End(c.output.String(), maxBytes), nil
}
