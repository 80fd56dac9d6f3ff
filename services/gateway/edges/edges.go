// Package edges knows which edges are heard, so that one that is cut off from the
// control plane shows in the platform's health although it goes on serving.
package edges

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// silence is how long an edge may say nothing: it speaks each second. Longer, and
	// it is cut off, or dead: from here these look the same.
	silence = 5 * time.Second
	// remembered is how long a silent edge counts as missing. An edge is disposable,
	// its name is not used again.
	remembered = 10 * time.Minute
	// most bounds what a flood of made-up edges can use.
	most = 4096
)

// Watch hears edges. It is safe for concurrent use.
type Watch struct {
	nc  *nats.Conn
	now func() time.Time

	mu    sync.Mutex
	heard map[string]time.Time
}

// New makes a watch that has heard nobody; nil for nc hears only what Hear is given.
func New(nc *nats.Conn, now func() time.Time) *Watch {
	return &Watch{nc: nc, now: now, heard: map[string]time.Time{}}
}

// Run listens until ctx ends and then returns nil.
func (w *Watch) Run(ctx context.Context) error {
	acks, err := w.nc.Subscribe(subjects.AllEdgesApplied, func(m *nats.Msg) {
		ack := &routingv1.EdgeApplied{}
		// What cannot be read is no edge's.
		if err := proto.Unmarshal(m.Data, ack); err == nil {
			w.Hear(ack)
		}
	})
	if err != nil {
		return fmt.Errorf("listen to edges: %w", err)
	}
	<-ctx.Done()
	// The connection's owner may have closed it before.
	_ = acks.Unsubscribe()
	return nil
}

// Hear notes what one edge said of itself.
func (w *Watch) Hear(ack *routingv1.EdgeApplied) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := ack.GetEdgeId()
	if ack.GetClosing() {
		delete(w.heard, id)
		return
	}
	if _, known := w.heard[id]; !known && len(w.heard) >= most {
		return
	}
	w.heard[id] = w.now()
}

// Edges is how many edges are heard, and how many were and are not any more
// without having said that they close.
func (w *Watch) Edges() (living, silent int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for id, at := range w.heard {
		switch quiet := now.Sub(at); {
		case quiet <= silence:
			living++
		case quiet <= remembered:
			silent++
		default:
			delete(w.heard, id)
		}
	}
	return living, silent
}
