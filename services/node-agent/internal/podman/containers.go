package podman

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containers/podman/v5/libpod/define"
	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/errorhandling"
	"go.opentelemetry.io/otel/attribute"

	"github.com/slipway-paas/slipway/services/node-agent/netpool"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// creatingGrace is how long a leased namespace may be without a container.
const creatingGrace = time.Minute

// List implements runtime.Runtime. It also lets go of namespaces whose container
// went while nobody watched.
func (p *Podman) List(ctx context.Context) (_ []runtime.Container, err error) {
	ctx, end := p.call(ctx, "list")
	defer end(&err)
	before := time.Now().Add(-creatingGrace)
	all := true
	found, err := containers.List(ctx, &containers.ListOptions{
		All: &all, Filters: map[string][]string{"label": {runtime.LabelOwner + "=" + p.owner}},
	})
	if err != nil {
		return nil, err
	}
	list := make([]runtime.Container, 0, len(found))
	ours := make(map[string]container, len(found))
	for _, c := range found {
		ours[c.ID] = p.containerOf(ctx, c.ID, c.Labels)
		name := ""
		if len(c.Names) > 0 {
			name = c.Names[0]
		}
		state := stateOf(c.State)
		if state == runtime.StateRunning && !runs(c.Pid, time.Unix(c.StartedAt, 0)) {
			if now, err := p.inspect(ctx, c.ID); err == nil {
				state = now.State
			}
		}
		list = append(list, runtime.Container{ID: c.ID, Name: name, ImageID: c.ImageID, State: state, Labels: c.Labels})
	}
	p.remember(ours, before)
	return list, nil
}

// remember notes whose containers are ours, and lets go of namespaces that none has.
func (p *Podman) remember(ours map[string]container, before time.Time) {
	p.mu.Lock()
	keep := map[string]bool{}
	for name := range p.creating {
		keep[name] = true
	}
	for id, c := range ours {
		p.ours[id] = c
		keep[c.namespace] = true
	}
	p.mu.Unlock()
	if p.pool != nil {
		p.pool.Retain(keep, before)
	}
}

// mustBeOurs fails with ErrNotFound for a container that is gone or another owner's.
func (p *Podman) mustBeOurs(ctx context.Context, id string) error {
	p.mu.Lock()
	_, ours := p.ours[id]
	p.mu.Unlock()
	if ours {
		return nil
	}
	c, err := p.inspect(ctx, id)
	if err != nil {
		return err
	}
	known := p.containerOf(ctx, c.ID, c.Labels)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ours[c.ID] = known
	return nil
}

// containerOf reads what Create wrote into the labels. Those that it cannot have written
// are ignored: traffic would go to whatever address somebody put there, and a namespace
// that is not the pool's would be let go.
func (p *Podman) containerOf(ctx context.Context, id string, labels map[string]string) container {
	namespace, ip, port := labels[labelNamespace], labels[labelIP], labels[labelPort]
	if namespace == "" && ip == "" {
		return container{}
	}
	check := func() error { return netpool.Check(p.network, namespace, ip) }
	if p.pool != nil {
		check = func() error { return p.pool.Check(namespace, ip) }
	}
	if err := check(); err != nil {
		p.log.WarnContext(ctx, "the labels that say where a container's network is are not ours and are ignored",
			"container", id, "namespace", namespace, "ip", ip, "error", err)
		return container{}
	}
	if !validPort(port) {
		p.log.WarnContext(ctx, "the label with a container's port is not ours and is ignored", "container", id, "port", port)
		port = ""
	}
	return container{namespace: namespace, address: address(ip, port)}
}

func stateOf(s string) runtime.State {
	switch s {
	case "running", "paused", "stopping":
		return runtime.StateRunning
	case "created", "configured", "initialized":
		return runtime.StateCreated
	default:
		return runtime.StateExited
	}
}

// Inspect implements runtime.Runtime.
func (p *Podman) Inspect(ctx context.Context, id string) (_ runtime.Container, err error) {
	ctx, end := p.call(ctx, "inspect", attribute.String("container.id", id))
	defer end(&err)
	return p.inspect(ctx, id)
}

func (p *Podman) inspect(ctx context.Context, id string) (runtime.Container, error) {
	data, err := containers.Inspect(ctx, id, nil)
	if err != nil {
		return runtime.Container{}, notFound(err)
	}
	if data.Config == nil || data.Config.Labels[runtime.LabelOwner] != p.owner {
		return runtime.Container{}, runtime.ErrNotFound
	}
	c := runtime.Container{
		ID: data.ID, Name: data.Name, ImageID: data.Image, Labels: data.Config.Labels,
		State: stateOf(data.State.Status), ExitCode: int(data.State.ExitCode),
		StartedAt: data.State.StartedAt, FinishedAt: data.State.FinishedAt, OOMKilled: data.State.OOMKilled,
	}
	if c.State == runtime.StateRunning && unreported(data.State, c.ID) {
		killed, err := stillUnreported(ctx, c.ID)
		if err != nil {
			return runtime.Container{}, err
		}
		if !killed { // the end was reported meanwhile
			return p.inspect(ctx, c.ID)
		}
		p.log.WarnContext(ctx, "a container and its monitor were killed, and Podman does not know", "container", c.ID)
		c.State, c.ExitCode, c.FinishedAt = runtime.StateExited, exitKilled, time.Now()
	}
	if c.State == runtime.StateRunning {
		c.Address = p.addressOf(ctx, data)
	}
	if c.State == runtime.StateExited && !c.OOMKilled && c.ExitCode != 0 {
		killed, err := kernelOOMKilled(c.ID, c.StartedAt)
		if err != nil {
			p.log.DebugContext(ctx, "the kernel's log cannot be read; out-of-memory may show as a plain kill", "error", err)
		}
		c.OOMKilled = killed
	}
	return c, nil
}

// addressOf is where a running container is reached; empty when it is nowhere that we
// have put it.
func (p *Podman) addressOf(ctx context.Context, data *define.InspectContainerData) string {
	labels := data.Config.Labels
	if labels[labelNamespace] != "" || labels[labelIP] != "" {
		return p.containerOf(ctx, data.ID, labels).address
	}
	port := labels[labelPort]
	if data.NetworkSettings == nil {
		return ""
	}
	if p.publish {
		for _, bound := range data.NetworkSettings.Ports[port+"/tcp"] {
			return address(bound.HostIP, bound.HostPort)
		}
		return ""
	}
	if n := data.NetworkSettings.Networks[p.bridge]; n != nil && validPort(port) {
		return address(n.IPAddress, port)
	}
	return ""
}

func validPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// Create implements runtime.Runtime.
func (p *Podman) Create(ctx context.Context, s runtime.Spec) (_ string, err error) {
	ctx, end := p.call(ctx, "create", attribute.String("container.name", s.Name))
	defer end(&err)
	attached, err := p.attach(ctx)
	if err != nil {
		return "", err
	}
	defer p.created(attached.namespace)
	generator := p.specFor(s, attached)
	made, err := containers.CreateWithSpec(ctx, generator, nil)
	if nameTaken(err) {
		if err = p.removeNamed(ctx, s.Name); err == nil {
			made, err = containers.CreateWithSpec(ctx, generator, nil)
		}
	}
	if err != nil {
		p.release(attached.namespace)
		if imageGone(err) {
			p.images.forget(s.Image)
			err = fmt.Errorf("%w: %w", runtime.ErrNoImage, err)
		}
		return "", err
	}
	known := p.containerOf(ctx, made.ID, generator.Labels)
	p.mu.Lock()
	p.ours[made.ID] = known
	p.mu.Unlock()
	return made.ID, nil
}

// attach gives the container its network: a namespace from the pool, or Podman's
// bridge when there is no pool. A pool that has none to give is an error, for the
// bridge isolates less.
func (p *Podman) attach(ctx context.Context) (network, error) {
	if p.pool == nil {
		return network{}, p.ensureBridge(ctx)
	}
	lease, err := p.pool.Lease(ctx)
	if err != nil {
		return network{}, fmt.Errorf("get a network namespace: %w", err)
	}
	p.mu.Lock()
	p.creating[lease.Name] = true
	p.mu.Unlock()
	return network{namespace: lease.Name, path: lease.Path, ip: lease.IP}, nil
}

func (p *Podman) created(namespace string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.creating, namespace)
}

func (p *Podman) release(namespace string) {
	if p.pool != nil && namespace != "" {
		p.pool.Release(namespace)
	}
}

// removeNamed clears the way for a new container: only one of ours may go.
func (p *Podman) removeNamed(ctx context.Context, name string) error {
	old, err := p.inspect(ctx, name)
	if errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("the name %q is taken by a container that is not ours", name)
	}
	if err != nil {
		return err
	}
	return p.remove(ctx, old.ID)
}

// Start implements runtime.Runtime.
func (p *Podman) Start(ctx context.Context, id string) (_ runtime.Started, err error) {
	ctx, end := p.call(ctx, "start", attribute.String("container.id", id))
	defer end(&err)
	if err := p.mustBeOurs(ctx, id); err != nil {
		return runtime.Started{}, err
	}
	if err := containers.Start(ctx, id, nil); err != nil {
		return runtime.Started{}, notFound(err)
	}
	now := time.Now()
	p.mu.Lock()
	known := p.ours[id].address
	p.mu.Unlock()
	if known != "" {
		return runtime.Started{Address: known, StartedAt: now}, nil
	}
	data, err := containers.Inspect(ctx, id, nil)
	if err != nil {
		return runtime.Started{}, notFound(err)
	}
	return runtime.Started{Address: p.addressOf(ctx, data), StartedAt: data.State.StartedAt}, nil
}

// Stop implements runtime.Runtime.
func (p *Podman) Stop(ctx context.Context, id string, grace time.Duration) (err error) {
	ctx, end := p.callWithin(ctx, grace+callTime, "stop", attribute.String("container.id", id))
	defer end(&err)
	if err := p.mustBeOurs(ctx, id); err != nil {
		return ignoreGone(err)
	}
	// Podman counts whole seconds; round up, so that no app gets less than it was told.
	seconds := uint((grace + time.Second - 1) / time.Second)
	err = containers.Stop(ctx, id, &containers.StopOptions{Timeout: &seconds})
	if errors.Is(notFound(err), runtime.ErrNotFound) || status(err) == http.StatusNotModified {
		return nil
	}
	if err != nil {
		// Podman refuses to stop what was never started; then nothing runs.
		if c, lookErr := p.inspect(ctx, id); lookErr == nil && c.State != runtime.StateRunning {
			return nil
		}
	}
	return err
}

// Remove implements runtime.Runtime.
func (p *Podman) Remove(ctx context.Context, id string) (err error) {
	ctx, end := p.call(ctx, "remove", attribute.String("container.id", id))
	defer end(&err)
	return p.remove(ctx, id)
}

func (p *Podman) remove(ctx context.Context, id string) error {
	if err := p.mustBeOurs(ctx, id); err != nil {
		return ignoreGone(err)
	}
	yes, now := true, uint(0)
	options := &containers.RemoveOptions{Force: &yes, Ignore: &yes, Volumes: &yes, Timeout: &now}
	_, err := containers.Remove(ctx, id, options)
	if err != nil && ctx.Err() == nil {
		// Podman learns that a container was killed behind its back by failing to stop it.
		_, err = containers.Remove(ctx, id, options)
	}
	if err != nil && !errors.Is(notFound(err), runtime.ErrNotFound) {
		return err
	}
	p.forget(id)
	return nil
}

func (p *Podman) forget(id string) {
	p.mu.Lock()
	gone := p.ours[id]
	delete(p.ours, id)
	p.mu.Unlock()
	p.release(gone.namespace)
}

func ignoreGone(err error) error {
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	return err
}

// imageGone recognizes Podman's answer to a container of an image that is not there.
func imageGone(err error) bool {
	return status(err) == http.StatusNotFound || strings.Contains(err.Error(), "image not known")
}

func status(err error) int {
	var model *errorhandling.ErrorModel
	if errors.As(err, &model) {
		return model.ResponseCode
	}
	return 0
}

func notFound(err error) error {
	if status(err) == http.StatusNotFound {
		return fmt.Errorf("%w: %w", runtime.ErrNotFound, err)
	}
	return err
}
