package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much the heap may grow between two collections, in percent of what lives on it,
// and the bound of all memory above which the collector works as hard as it must.
const (
	growthIdle  = 50
	growthBusy  = 200
	memoryLimit = 256 << 20

	look = time.Second
	// busyBytes allocated between two looks are a burst of work; after quietLooks
	// without one the daemon is idle.
	busyBytes  = 8 << 20
	quietLooks = 5
)

// saveMemory keeps the idle daemon small, for it shares the machine with apps, and
// lets it collect less often while much is asked of it. What the operator says in
// GOGC and GOMEMLIMIT counts instead.
func saveMemory(ctx context.Context, getenv func(string) string) {
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(growthIdle)
	go followWork(ctx)
}

func followWork(ctx context.Context) {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var w work
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		metrics.Read(sample)
		switch w.seen(sample[0].Value.Uint64()) {
		case becameBusy:
			debug.SetGCPercent(growthBusy)
		case becameIdle:
			debug.SetGCPercent(growthIdle)
			debug.FreeOSMemory()
		case unchanged:
		}
	}
}

// work tells bursts of allocation from idleness.
type work struct {
	allocated uint64 // in all, at the last look
	busy      bool
	quiet     int // looks since the last burst
}

type change int

const (
	unchanged change = iota
	becameBusy
	becameIdle
)

// seen takes how much was allocated in all so far.
func (w *work) seen(allocated uint64) change {
	burst := allocated-w.allocated >= busyBytes
	w.allocated = allocated
	switch {
	case burst:
		w.quiet = 0
		if !w.busy {
			w.busy = true
			return becameBusy
		}
	case w.busy:
		w.quiet++
		if w.quiet >= quietLooks {
			w.busy = false
			return becameIdle
		}
	}
	return unchanged
}
