package fake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// Pull implements runtime.Runtime.
func (r *Runtime) Pull(ctx context.Context, ref string) (runtime.Image, error) {
	m := r.machine
	if strings.ContainsAny(ref, " \t") || ref == "" {
		return runtime.Image{}, &runtime.PullError{Ref: ref, Cause: runtime.PullInvalid, Err: errors.New("not a reference")}
	}
	m.mu.Lock()
	delay := m.faults.PullDelay
	m.mu.Unlock()
	if delay > 0 {
		select {
		case <-ctx.Done():
			return runtime.Image{}, ctx.Err()
		case <-time.After(delay):
		}
	}
	if err := r.enter(ctx, &m.faults.FailPulls); err != nil {
		return runtime.Image{}, &runtime.PullError{Ref: ref, Cause: runtime.PullUnavailable, Err: err}
	}
	defer m.mu.Unlock()
	if _, digest, pinned := strings.Cut(ref, "@"); pinned {
		if image, ok := m.images[imageID(digest)]; ok {
			image.Cached = true
			return image, nil
		}
	}
	if m.faults.RegistryDown {
		return runtime.Image{}, &runtime.PullError{Ref: ref, Cause: runtime.PullUnavailable, Err: ErrInjected}
	}
	digest, ok := m.registry[ref]
	if !ok {
		return runtime.Image{}, &runtime.PullError{Ref: ref, Cause: runtime.PullNotFound, Err: errors.New("unknown")}
	}
	id := imageID(digest)
	_, cached := m.images[id]
	image := runtime.Image{ID: id, Digest: digest, References: []string{runtime.Repository(ref) + "@" + digest}}
	m.images[id] = image
	image.Cached = cached
	return image, nil
}

func imageID(digest string) string { return "image-" + strings.TrimPrefix(digest, "sha256:") }

// Create implements runtime.Runtime.
func (r *Runtime) Create(ctx context.Context, spec runtime.Spec) (string, error) {
	m := r.machine
	if err := r.enter(ctx, &m.faults.FailCreates); err != nil {
		return "", err
	}
	defer m.mu.Unlock()
	if _, ok := m.images[spec.Image]; !ok {
		return "", fmt.Errorf("%w: %s", runtime.ErrNoImage, spec.Image)
	}
	for _, c := range m.containers {
		if c.Name != spec.Name {
			continue
		}
		if c.owner != r.owner {
			return "", fmt.Errorf("the name %q is taken by a container that is not ours", spec.Name)
		}
		m.drop(c)
	}
	m.serial++
	labels := maps.Clone(spec.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[runtime.LabelOwner] = r.owner
	c := &container{owner: r.owner, serial: m.serial, spec: spec, Container: runtime.Container{
		ID: fmt.Sprintf("container-%04d", m.serial), Name: spec.Name, ImageID: spec.Image,
		State: runtime.StateCreated, Labels: labels,
	}}
	m.containers[c.ID] = c
	return c.ID, nil
}

// Start implements runtime.Runtime.
func (r *Runtime) Start(ctx context.Context, id string) (runtime.Started, error) {
	m := r.machine
	if err := r.enter(ctx, &m.faults.FailStarts); err != nil {
		return runtime.Started{}, err
	}
	defer m.mu.Unlock()
	c, err := r.find(id)
	if err != nil {
		return runtime.Started{}, err
	}
	if c.State != runtime.StateRunning {
		m.begin(c)
	}
	return runtime.Started{Address: c.Address, StartedAt: c.StartedAt}, nil
}

// Stop implements runtime.Runtime.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	m := r.machine
	if err := r.enter(ctx, nil); err != nil {
		return err
	}
	c, err := r.find(id)
	if err != nil || c.State != runtime.StateRunning {
		m.mu.Unlock()
		return nil
	}
	if grace > 0 && c.spec.Env["MODE"] != "stubborn" {
		m.end(c, 0, false)
		m.mu.Unlock()
		return nil
	}
	ended := c.ended
	m.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-ended:
		return nil
	case <-time.After(grace):
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end(c, 137, false)
	return nil
}

// Remove implements runtime.Runtime.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := r.enter(ctx, nil); err != nil {
		return err
	}
	defer r.machine.mu.Unlock()
	if c, err := r.find(id); err == nil {
		r.machine.drop(c)
	}
	return nil
}

// Images implements runtime.Runtime.
func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	if err := r.enter(ctx, nil); err != nil {
		return nil, err
	}
	defer r.machine.mu.Unlock()
	var list []runtime.Image
	for _, i := range r.machine.images {
		list = append(list, i)
	}
	return list, nil
}

// RemoveImage implements runtime.Runtime.
func (r *Runtime) RemoveImage(ctx context.Context, id string) error {
	if err := r.enter(ctx, nil); err != nil {
		return err
	}
	defer r.machine.mu.Unlock()
	for _, c := range r.machine.containers {
		if c.ImageID == id {
			return runtime.ErrInUse
		}
	}
	delete(r.machine.images, id)
	return nil
}
