package sim

import (
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// settle is how long a run goes on after the last fault: every deadline passes, and
// the longest back-off.
const settle = 200 * time.Second

// outcome is what came of a run.
type outcome struct {
	violation string
	lines     []string
	steps     int
	sum       uint64
}

// play runs a plan in virtual time.
func play(t *testing.T, p plan) outcome {
	t.Helper()
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var out outcome
	synctest.Test(t, func(t *testing.T) {
		w, err := newWorld(p, dir)
		if err != nil {
			t.Fatal(err)
		}
		w.run(w.began.Add(p.chaos))
		w.note("everything is quiet from here on")
		w.quiet = true
		w.run(w.began.Add(p.chaos + settle))
		if !w.failed() {
			w.checkEnd()
		}
		w.stop()
		out = outcome{w.violation, w.lines, w.steps, w.sum}
	})
	return out
}

// shrinkings bounds how many runs shrinking may take.
const shrinkings = 150

// shrink leaves out what the violation does not need.
func shrink(p plan, fails func(plan) bool) plan {
	left := shrinkings
	try := func(smaller plan) bool {
		if left == 0 {
			return false
		}
		left--
		if fails(smaller) {
			p = smaller
			return true
		}
		return false
	}
	for _, off := range []func(*noise){
		func(n *noise) { *n = noise{} },
		func(n *noise) { n.delays = false }, func(n *noise) { n.log = false }, func(n *noise) { n.conflicts = false },
		func(n *noise) { n.copies = false }, func(n *noise) { n.views = false }, func(n *noise) { n.runtime = false },
	} {
		smaller := p
		off(&smaller.noise)
		if smaller.noise != p.noise {
			try(smaller)
		}
	}
	for size := max(len(p.items)/2, 1); ; size /= 2 {
		for from := 0; from < len(p.items); {
			smaller := p
			smaller.items = slices.Delete(slices.Clone(p.items), from, min(from+size, len(p.items)))
			if !try(smaller) {
				from += size
			}
		}
		if size <= 1 {
			break
		}
	}
	for _, fewer := range []func(*plan){func(p *plan) { p.edges = 1 }, func(p *plan) { p.nodes = 1 }} {
		smaller := p
		fewer(&smaller)
		try(smaller)
	}
	return p
}
