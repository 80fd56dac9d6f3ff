package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
	"github.com/slipway-paas/slipway/services/node-agent/runtime/fake"
)

var errAway = errors.New("nobody answers")

// machine is a node: its containers outlive its agent.
type machine struct {
	*fake.Machine
	id, dir string
	// away machines have no network.
	away bool
	// lost ones will not be back.
	lost bool
	// missing is until when it was away, with some time to come back.
	missing      time.Time
	registryDown bool
}

// containerRuntime is a machine's runtime as its agent reaches it.
type containerRuntime struct {
	*fake.Runtime
	p *proc
	m *machine
}

var _ runtime.Runtime = containerRuntime{}

func (r containerRuntime) Info(ctx context.Context) (info runtime.Info, err error) {
	err = r.p.do(ctx, kindRuntime, "info", func(verdict) error {
		info, err = r.Runtime.Info(ctx)
		return err
	})
	return info, err
}

func (r containerRuntime) List(ctx context.Context) (list []runtime.Container, err error) {
	err = r.p.do(ctx, kindRuntime, "list", func(verdict) error {
		list, err = r.Runtime.List(ctx)
		slices.SortFunc(list, func(a, b runtime.Container) int { return strings.Compare(a.ID, b.ID) })
		return err
	})
	return list, err
}

func (r containerRuntime) Inspect(ctx context.Context, id string) (c runtime.Container, err error) {
	err = r.p.do(ctx, kindRuntime, "inspect "+id, func(verdict) error {
		c, err = r.Runtime.Inspect(ctx, id)
		return err
	})
	return c, err
}

func (r containerRuntime) Pull(ctx context.Context, ref string) (image runtime.Image, err error) {
	k := kindPull
	if strings.Contains(ref, "/slow") {
		k = kindSlowPull
	}
	err = r.p.do(ctx, k, ref, func(verdict) error {
		if r.m.registryDown || strings.Contains(ref, "/flaky") && r.p.w.dice("flaky", r.p.w.steps).Float64() < .5 && !r.p.w.quiet {
			return fake.ErrInjected
		}
		image, err = r.Runtime.Pull(ctx, ref)
		return err
	})
	if errors.Is(err, fake.ErrInjected) {
		err = &runtime.PullError{Ref: ref, Cause: runtime.PullUnavailable, Err: err}
	}
	return image, err
}

func (r containerRuntime) Create(ctx context.Context, spec runtime.Spec) (id string, err error) {
	err = r.p.do(ctx, kindCreate, "create "+r.p.w.short(spec.Labels[runtime.LabelInstance]), func(verdict) error {
		id, err = r.Runtime.Create(ctx, spec)
		return err
	})
	return id, err
}

func (r containerRuntime) Start(ctx context.Context, id string) (started runtime.Started, err error) {
	err = r.p.do(ctx, kindCreate, "start "+id, func(verdict) error {
		started, err = r.Runtime.Start(ctx, id)
		if err == nil {
			r.p.w.live(r.m, id)
		}
		return err
	})
	return started, err
}

func (r containerRuntime) Stop(ctx context.Context, id string, grace time.Duration) error {
	return r.p.do(ctx, kindRuntime, "stop "+id, func(verdict) error {
		r.p.w.stopping(r.m, id)
		return r.Runtime.Stop(ctx, id, grace)
	})
}

func (r containerRuntime) Remove(ctx context.Context, id string) error {
	return r.p.do(ctx, kindRuntime, "remove "+id, func(verdict) error {
		if planted == plantKeepContainer {
			return nil
		}
		r.p.w.stopping(r.m, id)
		return r.Runtime.Remove(ctx, id)
	})
}

func (r containerRuntime) Events(ctx context.Context) (events <-chan runtime.Event, err error) {
	err = r.p.do(ctx, kindRuntime, "events", func(verdict) error {
		events, err = r.Runtime.Events(ctx)
		return err
	})
	return events, err
}

// live plans the life of a container that has just been started.
func (w *world) live(m *machine, id string) {
	c := m.Containers()[id]
	if c.State != runtime.StateRunning {
		return
	}
	dies := map[app]time.Duration{exits: time.Second, weary: 25 * time.Second}[w.appOf(c)]
	if dies > 0 {
		w.after(dies, "", func() {
			if m.Containers()[id].State == runtime.StateRunning {
				w.note("%s %s ends by itself", m.id, id)
				m.Crash(id, 3)
			}
		})
	}
}

// answers says whether the instance's container would answer a request now.
func (w *world) answers(instance, address string) bool {
	_, c, ok := w.containerOf(instance)
	if !ok || c.Address != address {
		return false
	}
	age := time.Since(c.StartedAt)
	switch w.appOf(c) {
	case sick:
		return false
	case late:
		return age >= 4*time.Second
	case wobbles:
		return age%(21*time.Second) < 12*time.Second
	}
	return true
}

// containerOf is the running container of an instance on a machine that can be reached.
func (w *world) containerOf(instance string) (*machine, runtime.Container, bool) {
	for _, m := range w.machines {
		if m.away {
			continue
		}
		for _, c := range m.Containers() {
			if c.State == runtime.StateRunning && c.Labels[runtime.LabelInstance] == instance {
				return m, c, true
			}
		}
	}
	return nil, runtime.Container{}, false
}

func (w *world) appOf(c runtime.Container) app {
	create := w.createOf[c.Labels[runtime.LabelDeployment]]
	if create == nil {
		return serves
	}
	n := w.numberOf[c.Labels[runtime.LabelRelease]]
	return create.apps[min(max(int(n)-1, 0), len(create.apps)-1)]
}

// reboot ends all containers of a machine and its agent.
func (w *world) reboot(m *machine, down time.Duration) {
	w.kill(m.id)
	for _, id := range sortedKeys(m.Containers()) {
		m.Crash(id, 137)
	}
	m.missing = time.Now().Add(down + 15*time.Second)
	w.after(down, fmt.Sprintf("%s is back", m.id), func() { w.bootAgain(m.id) })
}
