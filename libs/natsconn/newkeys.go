package natsconn

import (
	"context"
	"maps"
	"time"
)

// keysEvery is how often the directory of keys is looked at.
const keysEvery = time.Second

// takeUpKeys lets the server know the nodes that have a key file now, and nobody else:
// a connection whose key is no longer there ends. Others do not notice.
func (e *Embedded) takeUpKeys(ctx context.Context) {
	before := e.known()
	now, err := before.withNodes()
	if err != nil {
		e.config.Log.WarnContext(ctx, "the NATS keys cannot be read: nodes keep those that are known", "error", err)
		return
	}
	if maps.Equal(now.nodes, before.nodes) {
		return
	}
	e.mu.Lock()
	e.config.Keys = now
	e.mu.Unlock()
	options, err := e.options()
	if err == nil {
		err = e.current().ReloadOptions(options)
	}
	if err != nil {
		e.mu.Lock()
		e.config.Keys = before // so that it is tried again
		e.mu.Unlock()
		e.config.Log.ErrorContext(ctx, "the new NATS keys were not taken up", "error", err)
		return
	}
	e.config.Log.InfoContext(ctx, "nodes that may connect to NATS", "nodes", now.Nodes())
}
