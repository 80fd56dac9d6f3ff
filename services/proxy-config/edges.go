package proxyconfig

import (
	"sync"
	"time"

	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

// maxEdges bounds what a flood of made-up edges can use.
const maxEdges = 4096

// edges are the edges that live, and what they serve. It is safe for concurrent use.
type edges struct {
	config Config
	now    func() time.Time

	mu    sync.Mutex
	heard map[string]edgeState
	since time.Time
}

type edgeState struct {
	revision uint64
	at       time.Time
}

func newEdges(c Config, now func() time.Time) *edges {
	return &edges{config: c, now: now, heard: map[string]edgeState{}, since: now()}
}

// hear notes an acknowledgement and reports whether it changed anything but the time.
func (e *edges) hear(a *routingv1.EdgeApplied) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	before, known := e.heard[a.GetEdgeId()]
	if a.GetClosing() {
		delete(e.heard, a.GetEdgeId())
		return known
	}
	if !known && len(e.heard) >= maxEdges {
		return false
	}
	e.heard[a.GetEdgeId()] = edgeState{revision: a.GetRevision(), at: e.now()}
	return !known || before.revision != a.GetRevision()
}

// listenAgain forgets everything: the line was lost, and with it what was said.
func (e *edges) listenAgain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.heard)
	e.since = e.now()
}

// applied returns the revision that every living edge serves at least, and how
// many live. None live until they have been listened to for a while.
func (e *edges) applied() (revision uint64, living int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if now.Sub(e.since) < e.config.ListenFirst {
		return 0, 0
	}
	for id, s := range e.heard {
		if now.Sub(s.at) > e.config.EdgeSilence {
			delete(e.heard, id)
			continue
		}
		if living == 0 || s.revision < revision {
			revision = s.revision
		}
		living++
	}
	return revision, living
}
