package module

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// errBodyPaused: the client sent headers and then let a body wait.
var errBodyPaused = errors.New("the request's body stopped coming")

// watchedBody bounds the pauses of a request's body, so that nobody holds an app's
// connection by sending nothing. A slow body that keeps coming is let be, and so are
// pauses once the app began its answer: the two may be talking.
type watchedBody struct {
	io.ReadCloser
	client  http.ResponseWriter
	control *http.ResponseController
	pause   time.Duration
	// expected: the client waits for "100 Continue" before it sends the body.
	expected bool

	mu     sync.Mutex
	until  time.Time
	let    bool
	paused bool
}

// mayLackBody: requests of these methods have no body but rarely.
func mayLackBody(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// findBody settles whether a request has a body where its headers do not say so, as
// over HTTP/3: only one that has none may be sent again.
func findBody(r *http.Request) {
	var first [1]byte
	n, err := io.ReadFull(r.Body, first[:])
	if n == 0 && errors.Is(err, io.EOF) {
		r.Body, r.ContentLength = http.NoBody, 0
		return
	}
	r.Body = readCloser{io.MultiReader(bytes.NewReader(first[:n]), r.Body), r.Body}
}

type readCloser struct {
	io.Reader
	io.Closer
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if err := b.begin(time.Now()); err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		return n, nil
	}
	var t net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout() {
		b.mu.Lock()
		b.paused = true
		b.mu.Unlock()
		return n, errBodyPaused
	}
	b.letBe()
	return n, err
}

func (b *watchedBody) begin(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.expected {
		if b.let {
			return errNotAskedFor
		}
		// Said here and not by the server at its first read: an answer that begins in
		// between would keep it unsaid, and the read would wait for ever.
		b.expected = false
		b.client.WriteHeader(http.StatusContinue)
	}
	// Setting it costs more than a read that finds its bytes: not before a quarter is over.
	if b.let || b.until.Sub(now) >= b.pause*3/4 {
		return nil
	}
	b.until = now.Add(b.pause)
	// A connection that knows no deadlines has its own limits.
	_ = b.control.SetReadDeadline(b.until)
	return nil
}

// errNotAskedFor: the app answered before anybody told the client to go on.
var errNotAskedFor = errors.New("the request's body was not asked for")

// letBe ends the watch: the connection is waited on for other reasons now.
func (b *watchedBody) letBe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.let {
		return
	}
	b.let = true
	_ = b.control.SetReadDeadline(time.Time{})
}

func (b *watchedBody) stopped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.paused
}
