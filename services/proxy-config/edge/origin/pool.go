package origin

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pool keeps idle connections by address, the one used last on top.
type pool struct {
	mu    sync.Mutex
	idle  map[string][]*conn
	sweep *time.Timer // nil while none is idle
}

// take returns an idle connection that is young enough and still open, or nil.
func (p *pool) take(address string, oldest time.Duration) *conn {
	for {
		p.mu.Lock()
		stack := p.idle[address]
		if len(stack) == 0 {
			p.mu.Unlock()
			return nil
		}
		c := stack[len(stack)-1]
		stack[len(stack)-1] = nil
		p.idle[address] = stack[:len(stack)-1]
		p.mu.Unlock()
		if time.Since(c.idleSince) < oldest && c.quiet() {
			return c
		}
		c.close()
	}
}

// give keeps the connection for its next request, or closes it when enough wait.
func (p *pool) give(c *conn, most int, oldest time.Duration) {
	c.idleSince = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle[c.address]) >= most {
		c.close()
		return
	}
	if p.idle == nil {
		p.idle = map[string][]*conn{}
	}
	p.idle[c.address] = append(p.idle[c.address], c)
	if p.sweep == nil {
		p.sweep = time.AfterFunc(oldest, func() { p.close(oldest) })
	}
}

// close closes connections that were idle for long, and comes again while any is left.
func (p *pool) close(oldest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, next := time.Now(), oldest
	for address, stack := range p.idle {
		old := 0
		for old < len(stack) && now.Sub(stack[old].idleSince) >= oldest {
			stack[old].close()
			old++
		}
		left := copy(stack, stack[old:])
		clear(stack[left:])
		if left == 0 {
			delete(p.idle, address)
			continue
		}
		p.idle[address] = stack[:left]
		next = min(next, oldest-now.Sub(stack[0].idleSince))
	}
	if len(p.idle) == 0 {
		p.sweep = nil
		return
	}
	p.sweep.Reset(max(next, time.Millisecond))
}

func (p *pool) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stack := range p.idle {
		for _, c := range stack {
			c.close()
		}
	}
	clear(p.idle)
}

// quietness tells whether a connection is open with nothing to read: an app that has
// closed it, or speaks unasked, must not get a request on it.
func quietness(raw net.Conn) func() bool {
	system, ok := raw.(syscall.Conn)
	if !ok {
		return func() bool { return true }
	}
	control, err := system.SyscallConn()
	if err != nil {
		return func() bool { return false }
	}
	var quiet bool
	var one [1]byte
	look := func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = err == unix.EAGAIN || err == unix.EWOULDBLOCK
	}
	return func() bool { return control.Control(look) == nil && quiet }
}
