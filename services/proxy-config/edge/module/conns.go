package module

import (
	"context"
	"net"
	"sync"

	"github.com/caddyserver/caddy/v2"
)

// Conns counts the connections that clients have open. Caddy's Stop returns while
// requests still run; the process may end only when their connections are closed.
type Conns struct {
	mu   sync.Mutex
	open int
	none chan struct{}
}

// NewConns counts from none.
func NewConns() *Conns {
	c := &Conns{none: make(chan struct{})}
	close(c.none)
	return c
}

// Open is the number of open connections.
func (c *Conns) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// Wait returns nil once no connection is open, or ctx's error.
func (c *Conns) Wait(ctx context.Context) error {
	c.mu.Lock()
	none := c.none
	c.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Conns) opened() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == 0 {
		c.none = make(chan struct{})
	}
	c.open++
}

func (c *Conns) closed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if c.open == 0 {
		close(c.none)
	}
}

// CountConns is the listener wrapper that counts.
type CountConns struct {
	conns *Conns
}

// CaddyModule implements caddy.Module.
func (w *CountConns) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.listeners." + Listener,
		New: func() caddy.Module { return &CountConns{conns: w.conns} },
	}
}

// WrapListener implements caddy.ListenerWrapper.
func (w *CountConns) WrapListener(ln net.Listener) net.Listener {
	return &countingListener{Listener: ln, conns: w.conns}
}

type countingListener struct {
	net.Listener
	conns *Conns
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.conns.opened()
	return &countedConn{Conn: conn, conns: l.conns}, nil
}

type countedConn struct {
	net.Conn
	conns *Conns
	once  sync.Once
}

func (c *countedConn) Close() error {
	defer c.once.Do(c.conns.closed)
	return c.Conn.Close()
}

// CloseWrite lets the HTTP server end an answer without cutting off a client that
// still sends.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

var _ caddy.ListenerWrapper = (*CountConns)(nil)
