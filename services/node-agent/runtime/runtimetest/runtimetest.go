// Package runtimetest is the contract of runtime.Runtime: one suite of stories that
// every implementation passes, the in-memory one too.
package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// Harness is one machine under test.
type Harness struct {
	// Runtime is the implementation; Other the same for another owner on the same machine.
	Runtime, Other runtime.Runtime
	// Push makes the test app's image available as repository:tag and returns its
	// reference and digest. Another variant is another image.
	Push func(t testing.TB, repository, tag, variant string) (ref, digest string)
	// RegistryHost is where Push pushes to.
	RegistryHost string
	// SetRegistryDown makes the registry unreachable, or reachable again.
	SetRegistryDown func(down bool)
}

// patience bounds every wait of the suite.
const patience = 30 * time.Second

var serial atomic.Int64

// Run runs the contract against the machine.
func Run(t *testing.T, h Harness) {
	for _, story := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"the runtime describes its machine", describes},
		{"a container is made, started, seen and removed", lifecycle},
		{"only the owner's containers are seen and touched", owners},
		{"a name left over from the owner is taken anew", sameName},
		{"a container that ends says its code and last lines", exits},
		{"running out of memory is told apart", outOfMemory},
		{"an app that obeys SIGTERM ends by itself", obeysStop},
		{"an app that ignores SIGTERM is killed after the grace", ignoresStop},
		{"stopping and removing what is gone is no error", gone},
		{"what happens is reported", events},
		{"an image that is not there is a final error", pullMissing},
		{"a registry that does not answer is not final", pullDown},
		{"a tag that moved gives the new image", pullMoved},
		{"images in use stay, others go", removeImage},
	} {
		t.Run(story.name, func(t *testing.T) { story.run(t, h) })
	}
}

func describes(t *testing.T, h Harness) {
	check(t, h.Runtime.Ping(within(t)))
	info, err := h.Runtime.Info(within(t))
	check(t, err)
	if info.Name == "" || info.MemoryBytes <= 0 || info.CPUMillicores <= 0 {
		t.Fatalf("info = %+v", info)
	}
}

// startedApart is how much Start and Inspect may differ about when a container began.
const startedApart = 10 * time.Second

func lifecycle(t *testing.T, h Harness) {
	ctx := within(t)
	id := create(t, h, h.Runtime, nil)
	if c := inspect(t, h, id); c.State != runtime.StateCreated {
		t.Fatalf("before the start the state is %q", c.State)
	}
	started, err := h.Runtime.Start(ctx, id)
	check(t, err)
	if !strings.HasSuffix(started.Address, ":3000") || started.StartedAt.IsZero() {
		t.Fatalf("started = %+v", started)
	}
	c := inspect(t, h, id)
	if c.State != runtime.StateRunning || c.Address != started.Address || c.StartedAt.Sub(started.StartedAt).Abs() > startedApart {
		t.Fatalf("inspect = %+v, started = %+v", c, started)
	}
	listed := find(t, h.Runtime, id)
	if listed == nil || listed.State != runtime.StateRunning || listed.Labels[runtime.LabelInstance] == "" {
		t.Fatalf("listed = %+v", listed)
	}
	check(t, h.Runtime.Remove(ctx, id))
	if _, err := h.Runtime.Inspect(ctx, id); !errors.Is(err, runtime.ErrNotFound) {
		t.Fatalf("after the removal inspect says %v", err)
	}
	if find(t, h.Runtime, id) != nil {
		t.Fatal("the removed container is still listed")
	}
}

func owners(t *testing.T, h Harness) {
	ctx := within(t)
	id := create(t, h, h.Runtime, nil)
	if find(t, h.Other, id) != nil {
		t.Fatal("another owner sees the container")
	}
	if _, err := h.Other.Inspect(ctx, id); !errors.Is(err, runtime.ErrNotFound) {
		t.Fatalf("another owner's inspect says %v", err)
	}
	check(t, h.Other.Remove(ctx, id))
	if find(t, h.Runtime, id) == nil {
		t.Fatal("another owner removed the container")
	}
}

func sameName(t *testing.T, h Harness) {
	spec := specOf(t, h, nil)
	first := createSpec(t, h.Runtime, spec)
	second := createSpec(t, h.Runtime, spec)
	if first == second || find(t, h.Runtime, first) != nil {
		t.Fatal("the older container is still there")
	}
	foreign := spec
	if _, err := h.Other.Create(within(t), foreign); err == nil {
		t.Fatal("another owner took the name")
	}
	if find(t, h.Runtime, second) == nil {
		t.Fatal("another owner replaced the container")
	}
}

func exits(t *testing.T, h Harness) {
	id := start(t, h, map[string]string{"MODE": "exit", "CODE": "3", "LINES": "50"})
	c := waitExited(t, h, id)
	if c.ExitCode != 3 || c.OOMKilled || c.FinishedAt.IsZero() {
		t.Fatalf("inspect = %+v", c)
	}
	said, err := h.Runtime.Tail(within(t), id, 16<<10)
	check(t, err)
	if said.Cut || !strings.Contains(said.Text, "line 1\nline 2\n") || !strings.HasSuffix(said.Text, "line 49\nline 50\n") {
		t.Fatalf("tail = %+v", said)
	}
	said, err = h.Runtime.Tail(within(t), id, 11)
	check(t, err)
	if want := (runtime.Output{Text: "49\nline 50\n", Cut: true}); said != want {
		t.Fatalf("tail of 11 bytes = %+v", said)
	}
}

func outOfMemory(t *testing.T, h Harness) {
	id := start(t, h, map[string]string{"MODE": "oom"})
	if c := waitExited(t, h, id); !c.OOMKilled || c.ExitCode != 137 {
		t.Fatalf("inspect = %+v", c)
	}
	plain := start(t, h, nil)
	check(t, h.Runtime.Stop(within(t), plain, 0))
	if c := waitExited(t, h, plain); c.OOMKilled {
		t.Fatal("a plain kill is called out of memory")
	}
}

func obeysStop(t *testing.T, h Harness) {
	id := start(t, h, nil)
	waitLine(t, h, id, "listening")
	check(t, h.Runtime.Stop(within(t), id, 20*time.Second))
	if c := inspect(t, h, id); c.State != runtime.StateExited || c.ExitCode != 0 {
		t.Fatalf("inspect = %+v", c)
	}
}

func ignoresStop(t *testing.T, h Harness) {
	id := start(t, h, map[string]string{"MODE": "stubborn"})
	waitLine(t, h, id, "listening")
	began := time.Now()
	check(t, h.Runtime.Stop(within(t), id, time.Second))
	if took := time.Since(began); took < time.Second {
		t.Fatalf("killed after %v", took)
	}
	if c := inspect(t, h, id); c.State != runtime.StateExited || c.ExitCode != 137 {
		t.Fatalf("inspect = %+v", c)
	}
}

func gone(t *testing.T, h Harness) {
	ctx := within(t)
	id := create(t, h, h.Runtime, nil)
	check(t, h.Runtime.Stop(ctx, id, time.Second))
	check(t, h.Runtime.Remove(ctx, id))
	check(t, h.Runtime.Remove(ctx, id))
	check(t, h.Runtime.Stop(ctx, id, time.Second))
	if _, err := h.Runtime.Start(ctx, id); !errors.Is(err, runtime.ErrNotFound) {
		t.Fatalf("start says %v", err)
	}
}

func events(t *testing.T, h Harness) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := h.Runtime.Events(ctx)
	check(t, err)
	id := start(t, h, nil)
	expect := func(kind runtime.EventType) {
		for e := range stream {
			if e.ContainerID != id {
				continue
			}
			if e.Type != kind || e.Labels[runtime.LabelInstance] == "" {
				t.Fatalf("event = %+v, want %s", e, kind)
			}
			return
		}
		t.Fatalf("the stream ended before %s", kind)
	}
	expect(runtime.EventStarted)
	check(t, h.Runtime.Stop(ctx, id, 0))
	expect(runtime.EventDied)
	check(t, h.Runtime.Remove(ctx, id))
	expect(runtime.EventRemoved)
	cancel()
	for range stream { // it ends with its context
	}
}

func pullMissing(t *testing.T, h Harness) {
	_, err := h.Runtime.Pull(within(t), h.RegistryHost+"/nowhere/nothing:v1")
	var pull *runtime.PullError
	if !errors.As(err, &pull) || pull.Cause != runtime.PullNotFound || !runtime.IsFinal(err) {
		t.Fatalf("pull says %v", err)
	}
	if _, err = h.Runtime.Pull(within(t), "Not A Reference"); !runtime.IsFinal(err) {
		t.Fatalf("pull of no reference says %v", err)
	}
}

func pullDown(t *testing.T, h Harness) {
	ctx := within(t)
	ref, digest := h.Push(t, "contract/down", "v1", "down")
	_, err := h.Runtime.Pull(ctx, ref)
	check(t, err)
	h.SetRegistryDown(true)
	defer h.SetRegistryDown(false)
	if _, err := h.Runtime.Pull(ctx, ref); err == nil || runtime.IsFinal(err) {
		t.Fatalf("pull of a tag says %v", err)
	}
	pinned := strings.TrimSuffix(ref, ":v1") + "@" + digest
	image, err := h.Runtime.Pull(ctx, pinned)
	check(t, err)
	if image.Digest != digest || !image.Cached {
		t.Fatalf("pull of a digest that is present = %+v", image)
	}
}

func pullMoved(t *testing.T, h Harness) {
	ctx := within(t)
	ref, first := h.Push(t, "contract/moving", "latest", "one")
	before, err := h.Runtime.Pull(ctx, ref)
	check(t, err)
	_, second := h.Push(t, "contract/moving", "latest", "two")
	after, err := h.Runtime.Pull(ctx, ref)
	check(t, err)
	if before.Digest != first || after.Digest != second || before.ID == after.ID {
		t.Fatalf("before = %+v (pushed %s), after = %+v (pushed %s)", before, first, after, second)
	}
	again, err := h.Runtime.Pull(ctx, ref)
	check(t, err)
	if again.ID != after.ID || !again.Cached {
		t.Fatalf("again = %+v", again)
	}
}

func removeImage(t *testing.T, h Harness) {
	ctx := within(t)
	ref, _ := h.Push(t, "contract/pruned", "v1", fmt.Sprint("pruned", serial.Add(1)))
	image, err := h.Runtime.Pull(ctx, ref)
	check(t, err)
	id := createSpec(t, h.Runtime, newSpec(image.ID, nil))
	if err := h.Runtime.RemoveImage(ctx, image.ID); !errors.Is(err, runtime.ErrInUse) {
		t.Fatalf("removing an image in use says %v", err)
	}
	check(t, h.Runtime.Remove(ctx, id))
	check(t, h.Runtime.RemoveImage(ctx, image.ID))
	check(t, h.Runtime.RemoveImage(ctx, image.ID))
	present, err := h.Runtime.Images(ctx)
	check(t, err)
	for _, i := range present {
		if i.ID == image.ID {
			t.Fatal("the removed image is still present")
		}
	}
	if _, err := h.Runtime.Create(ctx, newSpec(image.ID, nil)); !errors.Is(err, runtime.ErrNoImage) {
		t.Fatalf("a container of a removed image says %v", err)
	}
	again, err := h.Runtime.Pull(ctx, ref)
	check(t, err)
	if again.Cached {
		t.Fatal("the removed image was taken for present")
	}
}
