// Package tunnel ends what outlives its request once the instance behind it has
// left the route: a WebSocket gets a close frame, an event stream its end, any
// other upgraded connection is closed. Tunnels of other apps are never touched.
package tunnel

import (
	"crypto/rand"
	"io"
	"net"
	"sync"
	"time"
)

// goodbye is how long a WebSocket's ends have to answer the close frame.
const goodbye = time.Second

// reason is said with the close frame.
const reason = "the app's instance is going away"

// WebSocket is one WebSocket between a client and an instance: it passes bytes
// through, and can put a close frame between two frames of either direction.
type WebSocket struct {
	client net.Conn
	app    io.ReadWriteCloser

	toClient, toApp direction
}

// NewWebSocket is for the two connections after the switch of protocols.
func NewWebSocket(client net.Conn, app io.ReadWriteCloser) *WebSocket {
	var mask [4]byte
	// Read never fails: it would end the process.
	_, _ = rand.Read(mask[:])
	w := &WebSocket{client: client, app: app}
	w.toClient = direction{out: client, bye: closeFrame(reason, nil)}
	w.toApp = direction{out: app, bye: closeFrame(reason, &mask)}
	return w
}

// ToClient is what the app says goes through.
func (w *WebSocket) ToClient() io.Writer { return &w.toClient }

// ToApp is the other direction.
func (w *WebSocket) ToApp() io.Writer { return &w.toApp }

// End says goodbye in both directions, and closes both connections when they are
// not closed by their other ends soon after. It does not wait for that.
func (w *WebSocket) End() {
	time.AfterFunc(goodbye, w.cut)
	// Either may be stuck behind a reader that does not read; cut frees it.
	go w.toClient.end()
	go w.toApp.end()
}

func (w *WebSocket) cut() {
	_ = w.client.Close()
	_ = w.app.Close()
}

// direction is what one side is sent.
type direction struct {
	out io.Writer
	bye []byte

	mu     sync.Mutex
	frames frames
	ending bool
	// over is set once a close frame of ours was sent: what comes after it is dropped.
	over bool
}

// Write passes p on, or drops it when nothing may follow any more.
func (d *direction) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return len(p), nil
	}
	if !d.ending {
		d.frames.follow(p)
		return d.out.Write(p)
	}
	rest := d.frames.upToBoundary(p)
	if n, err := d.out.Write(p[:rest]); err != nil {
		return n, err
	}
	if d.frames.between() {
		if err := d.sayBye(); err != nil {
			return rest, err
		}
	}
	return len(p), nil
}

func (d *direction) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ending {
		return
	}
	d.ending = true
	if d.frames.between() {
		// The connection is closed in a moment, whether this arrives or not.
		_ = d.sayBye()
	}
}

func (d *direction) sayBye() error {
	d.over = true
	if d.frames.closed {
		return nil
	}
	_, err := d.out.Write(d.bye)
	return err
}
