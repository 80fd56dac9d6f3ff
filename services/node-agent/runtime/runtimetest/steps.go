package runtimetest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func specOf(t testing.TB, h Harness, env map[string]string) runtime.Spec {
	t.Helper()
	ref, _ := h.Push(t, "contract/app", "v1", "app")
	image, err := h.Runtime.Pull(within(t), ref)
	check(t, err)
	return newSpec(image.ID, env)
}

func newSpec(image string, env map[string]string) runtime.Spec {
	n := serial.Add(1)
	return runtime.Spec{
		Name: fmt.Sprintf("contract-%d", n), Image: image, Env: env,
		Labels:      map[string]string{runtime.LabelInstance: fmt.Sprintf("instance-%d", n), runtime.LabelOrg: "acme"},
		MemoryBytes: 64 << 20, CPUMillicores: 500, Port: 3000,
	}
}

func createSpec(t testing.TB, r runtime.Runtime, spec runtime.Spec) string {
	t.Helper()
	id, err := r.Create(within(t), spec)
	check(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.Remove(ctx, id); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return id
}

func create(t testing.TB, h Harness, r runtime.Runtime, env map[string]string) string {
	t.Helper()
	return createSpec(t, r, specOf(t, h, env))
}

func start(t testing.TB, h Harness, env map[string]string) string {
	t.Helper()
	id := create(t, h, h.Runtime, env)
	_, err := h.Runtime.Start(within(t), id)
	check(t, err)
	return id
}

func inspect(t testing.TB, h Harness, id string) runtime.Container {
	t.Helper()
	c, err := h.Runtime.Inspect(within(t), id)
	check(t, err)
	return c
}

func find(t testing.TB, r runtime.Runtime, id string) *runtime.Container {
	t.Helper()
	list, err := r.List(within(t))
	check(t, err)
	for _, c := range list {
		if c.ID == id {
			return &c
		}
	}
	return nil
}

func waitExited(t testing.TB, h Harness, id string) runtime.Container {
	t.Helper()
	var c runtime.Container
	until(t, "the container exits", func() bool {
		c = inspect(t, h, id)
		return c.State == runtime.StateExited
	})
	return c
}

func waitLine(t testing.TB, h Harness, id, text string) {
	t.Helper()
	until(t, "the container says "+text, func() bool {
		said, err := h.Runtime.Tail(within(t), id, 4096)
		return err == nil && strings.Contains(said.Text, text)
	})
}

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain until %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
