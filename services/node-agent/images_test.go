package nodeagent_test

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAnImageRemovedByHandIsPulledAgainAndCostsNoAttempt(t *testing.T) {
	story(t, func(w *world) {
		w.run("a")
		w.told()
		list, err := w.runtime.Images(w.t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("images = %v, %v", list, err)
		}
		w.machine.RemoveBehindBack(w.container())
		if err := w.runtime.RemoveImage(w.t.Context(), list[0].ID); err != nil {
			t.Fatal(err)
		}
		w.wait(time.Minute)
		w.expect("ContainerExited a attempt 1 code 137 oom false restart in 1s", "ContainerStarted a attempt 2")
	})
}

func TestAnImageNothingNeedsIsPruned(t *testing.T) {
	story(t, func(w *world) {
		foreign := w.machine.Push("registry.test/other/image:v1", "x")
		if _, err := w.machine.Runtime("somebody-else").Pull(w.t.Context(), "registry.test/other/image:v1"); err != nil {
			t.Fatal(err)
		}
		w.run("a")
		w.wait(time.Hour)
		if n := images(t, w); n != 2 {
			t.Fatalf("%d images while one runs", n)
		}
		w.wish("a", removed)
		w.desired.drop("a")
		w.wait(5 * time.Minute)
		if n := images(t, w); n != 2 {
			t.Fatalf("pruned too early: %d images", n)
		}
		w.wait(10 * time.Minute)
		list, err := w.runtime.Images(w.t.Context())
		if err != nil || len(list) != 1 || list[0].Digest != foreign {
			t.Fatalf("images = %v, %v", list, err)
		}
	})
}

func images(t *testing.T, w *world) int {
	t.Helper()
	synctest.Wait()
	list, err := w.runtime.Images(w.t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
