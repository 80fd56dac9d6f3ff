// Package origin asks apps over HTTP/1.1. Most requests have no body: these are
// written and answered on the caller's own goroutine, which costs a third less than
// the standard transport with its two goroutines a connection. All others, and
// switches of protocols, go to the standard transport.
package origin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"sync/atomic"
	"time"
)

const (
	// maxHeader bounds an answer's headers, interim ones included.
	maxHeader = 1 << 20
	// maxInterim bounds the interim answers (1xx) to one request.
	maxInterim = 5
)

// Transport is an http.RoundTripper for plain HTTP. It writes a request's headers as
// they are: hop-by-hop ones must be gone. Of httptrace it calls GetConn, GotConn,
// GotFirstResponseByte and Got1xxResponse.
type Transport struct {
	// Dial makes a connection to host:port.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Others is asked what this transport does not do itself.
	Others http.RoundTripper
	// AnswerTimeout bounds the time until an answer begins.
	AnswerTimeout time.Duration
	// IdleTimeout and IdlePerHost bound connections that wait for their next request.
	IdleTimeout time.Duration
	IdlePerHost int

	pool pool
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil && req.Body != http.NoBody || req.Header["Upgrade"] != nil || req.Header["Expect"] != nil {
		return t.Others.RoundTrip(req)
	}
	for {
		c, err := t.connection(req)
		if err != nil {
			return nil, err
		}
		res, err := t.ask(c, req)
		if err == nil {
			return res, nil
		}
		c.close()
		if ctxErr := context.Cause(req.Context()); ctxErr != nil {
			return nil, ctxErr
		}
		// The app closed the connection between two requests: it saw nothing of this
		// one, or, where it did, asking again asks for nothing twice.
		if c.used && !c.answered && safe(req.Method) && !errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		return nil, err
	}
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// CloseIdleConnections closes the connections that wait for a request.
func (t *Transport) CloseIdleConnections() { t.pool.clear() }

func (t *Transport) connection(req *http.Request) (*conn, error) {
	address := req.URL.Host
	trace := httptrace.ContextClientTrace(req.Context())
	if trace != nil && trace.GetConn != nil {
		trace.GetConn(address)
	}
	c, err := t.idleOrNew(req.Context(), address)
	if err == nil && trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: c.Conn, Reused: c.used, WasIdle: c.used})
	}
	return c, err
}

func (t *Transport) idleOrNew(ctx context.Context, address string) (*conn, error) {
	if c := t.pool.take(address, t.IdleTimeout); c != nil {
		c.used, c.answered = true, false
		return c, nil
	}
	raw, err := t.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return newConn(raw, address), nil
}

// ask writes the request and reads the head of its answer.
func (t *Transport) ask(c *conn, req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	// A deadline that is over frees whoever waits for the connection.
	stop := context.AfterFunc(ctx, c.interrupt)
	if err := c.SetDeadline(time.Now().Add(t.AnswerTimeout)); err != nil {
		stop()
		return nil, fmt.Errorf("bounding the answer's time: %w", err)
	}
	res, err := c.exchange(req)
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		stop()
		return nil, err
	}
	b := &body{ReadCloser: res.Body, conn: c, transport: t, stop: stop, keep: !res.Close}
	if res.Body == http.NoBody {
		b.release(true)
		return res, nil
	}
	res.Body = b
	return res, nil
}

// exchange passes interim answers on and returns the final one.
func (c *conn) exchange(req *http.Request) (*http.Response, error) {
	if err := req.Write(c.out); err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	if err := c.out.Flush(); err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	c.left = maxHeader
	trace := httptrace.ContextClientTrace(req.Context())
	for range maxInterim + 1 {
		if _, err := c.in.Peek(1); err != nil {
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
		if !c.answered && trace != nil && trace.GotFirstResponseByte != nil {
			trace.GotFirstResponseByte()
		}
		c.answered = true
		res, err := http.ReadResponse(c.in, req)
		if err != nil {
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
		switch {
		case res.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("the app switched protocols unasked")
		case res.StatusCode >= 200:
			c.left = unlimited
			return res, nil
		}
		if trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
				return nil, err
			}
		}
	}
	return nil, fmt.Errorf("the app sent more than %d interim answers", maxInterim)
}

// body gives its connection back when it was read to its end, and closes it when it
// is closed before.
type body struct {
	io.ReadCloser
	conn      *conn
	transport *Transport
	stop      func() bool
	keep      bool
	released  atomic.Bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.release(errors.Is(err, io.EOF))
	}
	return n, err
}

func (b *body) Close() error {
	b.release(false)
	return nil
}

func (b *body) release(whole bool) {
	if b.released.Swap(true) {
		return
	}
	// When stop comes too late the connection is interrupted, now or in a moment.
	if b.stop() && whole && b.keep && b.conn.in.Buffered() == 0 {
		b.transport.pool.give(b.conn, b.transport.IdlePerHost, b.transport.IdleTimeout)
		return
	}
	b.conn.close()
}

const unlimited = int64(1) << 62

// conn is one connection to an app, used by one request at a time.
type conn struct {
	net.Conn
	address string
	in      *bufio.Reader
	out     *bufio.Writer
	// left is how much may still be read.
	left int64
	// used: it had a request before; answered: this one's answer has begun.
	used, answered bool
	idleSince      time.Time
	quiet          func() bool
}

func newConn(raw net.Conn, address string) *conn {
	c := &conn{Conn: raw, address: address, left: unlimited, quiet: quietness(raw)}
	c.in, c.out = bufio.NewReader(limited{c}), bufio.NewWriter(raw)
	return c
}

// limited reads from the connection as long as anything is left to be read.
type limited struct{ *conn }

func (l limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errors.New("the answer's headers are too long")
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.Conn.Read(p)
	l.left -= int64(n)
	return n, err
}

func (c *conn) interrupt() { _ = c.SetDeadline(time.Unix(1, 0)) }

// close ends it; whatever it says to that does not matter any more.
func (c *conn) close() { _ = c.Conn.Close() }
