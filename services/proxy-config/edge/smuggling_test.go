package edge_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// tap is an app that speaks no HTTP of its own: it keeps every byte that arrives,
// and answers each request that a strict reader would find in them.
type tap struct {
	address string
	mu      sync.Mutex
	got     strings.Builder
	count   int
}

func newTap(t *testing.T) *tap {
	t.Helper()
	l, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	a := &tap{address: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go a.serve(conn)
		}
	}()
	return a
}

func (a *tap) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(io.TeeReader(conn, writerFunc(func(p []byte) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.got.Write(p)
	})))
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		a.mu.Lock()
		a.count++
		a.mu.Unlock()
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

func (a *tap) requests() (n int, raw string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count, a.got.String()
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// send writes raw bytes and reads the status of each answer until the edge closes,
// or has been silent for a moment.
func (e *edgeProcess) send(raw string) (statuses []int) {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, raw); err != nil {
		return nil
	}
	in := bufio.NewReader(conn)
	limit := patience
	for {
		if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
			e.t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		statuses = append(statuses, resp.StatusCode)
		// A second answer would be that to a smuggled request.
		limit = 300 * time.Millisecond
	}
}

const smuggled = "GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n"

func TestNoRequestIsSmuggledPastTheEdge(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	app := newTap(t)
	c.applied(c.put(serving("app.test", app.address)))

	post := func(headers, body string) string {
		return "POST / HTTP/1.1\r\nHost: app.test\r\n" + headers + "\r\n" + body
	}
	chunked := "0\r\n\r\n" + smuggled
	for what, raw := range map[string]string{
		"two lengths that differ":            post("Content-Length: 0\r\nContent-Length: 41\r\n", smuggled),
		"a list of lengths":                  post("Content-Length: 0, 41\r\n", smuggled),
		"a length with a sign":               post("Content-Length: +0\r\n", smuggled),
		"a negative length":                  post("Content-Length: -1\r\n", smuggled),
		"a hexadecimal length":               post("Content-Length: 0x0\r\n", smuggled),
		"an empty length and chunks":         post("Content-Length: \r\nTransfer-Encoding: chunked\r\n", chunked),
		"an unknown coding":                  post("Transfer-Encoding: xchunked\r\n", chunked),
		"chunked and identity":               post("Transfer-Encoding: chunked, identity\r\n", chunked),
		"chunked twice":                      post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunked),
		"chunked after a vertical tab":       post("Transfer-Encoding: \vchunked\r\n", chunked),
		"a coding in quotes":                 post("Transfer-Encoding: \"chunked\"\r\n", chunked),
		"a header's name that ends in space": post("Transfer-Encoding : chunked\r\n", chunked),
		"a header's name with a space":       post("Content Length: 0\r\n", smuggled),
		"a header's name with a tab":         post("Transfer-Encoding\t: chunked\r\n", chunked),
		"a header without a name":            post(": value\r\n", smuggled),
		"a header without a colon":           post("nothing\r\n", smuggled),
		"a bare CR in a value":               post("X-A: a\rTransfer-Encoding: chunked\r\n", chunked),
		"a NUL in a value":                   post("X-A: a\x00b\r\n", smuggled),
		"a folded first line":                "POST / HTTP/1.1\r\n Host: app.test\r\n\r\n" + smuggled,
		"no host":                            "GET / HTTP/1.1\r\n\r\n" + smuggled,
		"two hosts":                          "GET / HTTP/1.1\r\nHost: app.test\r\nHost: other.test\r\n\r\n" + smuggled,
		"a host with a slash":                "GET / HTTP/1.1\r\nHost: app.test/x\r\n\r\n" + smuggled,
		"a host with a space":                "GET / HTTP/1.1\r\nHost: app.test other\r\n\r\n" + smuggled,
		"a version that is none":             "GET / HTTP/1.1.1\r\nHost: app.test\r\n\r\n" + smuggled,
		"a request line with more words":     "GET / x HTTP/1.1\r\nHost: app.test\r\n\r\n" + smuggled,
		"a method that is no token":          "GE(T / HTTP/1.1\r\nHost: app.test\r\n\r\n" + smuggled,
		"headers beyond all measure":         post("X-Big: "+strings.Repeat("x", 200<<10)+"\r\n", smuggled),
		"too many headers":                   post(strings.Repeat("X-A: b\r\n", 30<<10), smuggled),
		"a tunnel":                           "CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n",
	} {
		before, _ := app.requests()
		statuses := e.send(raw)
		after, _ := app.requests()
		if len(statuses) != 1 || statuses[0]/100 != 4 && statuses[0] != 501 && statuses[0] != 505 {
			t.Errorf("%s: answered %v", what, statuses)
		}
		if after != before {
			t.Errorf("%s: the app saw %d requests", what, after-before)
		}
	}
	if _, raw := app.requests(); strings.Contains(raw, "smuggled") {
		t.Errorf("something was smuggled:\n%s", raw)
	}
}

// Requests that RFC 9112 lets a server read in one way only reach the app in that
// way, and as one request.
func TestWhatCanBeReadInOneWayReachesTheAppInThatWay(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	for what, test := range map[string]struct {
		raw      string
		arrives  []string
		vanishes []string
	}{
		"chunks outweigh a length, and nothing after them is a request of this connection": {
			raw:      "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
			arrives:  []string{"hello"},
			vanishes: []string{"Content-Length: 6"},
		},
		"the absolute form's host is the host": {
			raw:      "GET http://app.test/path HTTP/1.1\r\nHost: other.test\r\n\r\n",
			arrives:  []string{"GET /path HTTP/1.1\r\n", "Host: app.test\r\n"},
			vanishes: []string{"Host: other.test"},
		},
		"the same length twice is one": {
			raw:     "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
			arrives: []string{"Content-Length: 5\r\n", "hello"},
		},
		"headers of this hop stay here": {
			raw:      "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close, X-Secret\r\nX-Secret: yes\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nTE: gzip\r\n\r\n",
			vanishes: []string{"X-Secret", "Keep-Alive", "Proxy-Connection", "\r\nTe:", "Connection: close"},
		},
	} {
		app := newTap(t)
		c.applied(c.put(serving("app.test", app.address)))
		statuses := e.send(test.raw)
		n, raw := app.requests()
		if len(statuses) != 1 || statuses[0] != 200 || n != 1 {
			t.Errorf("%s: answered %v, the app saw %d requests", what, statuses, n)
		}
		for _, want := range test.arrives {
			if !strings.Contains(raw, want) {
				t.Errorf("%s: %q does not arrive in %q", what, want, raw)
			}
		}
		for _, not := range test.vanishes {
			if strings.Contains(raw, not) {
				t.Errorf("%s: %q arrives in %q", what, not, raw)
			}
		}
	}
}

func TestHeadersThatDribbleAreCutOff(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir(), "--header-timeout", "500ms")
	app := newTap(t)
	c.applied(c.put(serving("app.test", app.address)))
	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: app.test\r\n"); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		if _, err := fmt.Fprintf(conn, "X-%d: a\r\n", n); err != nil {
			break
		}
		if time.Since(began) > patience {
			t.Fatal("headers may dribble for ever")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if n, _ := app.requests(); n != 0 {
		t.Errorf("the app saw %d requests", n)
	}
}

func TestABodyThatStopsComingIsCutOff(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir(), "--body-timeout", "500ms")
	app := newTap(t)
	c.applied(c.put(serving("app.test", app.address)))
	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// Slow, and it goes on: that is a client with a bad line.
	for range 8 {
		if _, err := io.WriteString(conn, "slow "); err != nil {
			t.Fatalf("a body that keeps coming was cut off: %v", err)
		}
		time.Sleep(150 * time.Millisecond)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("a body that stopped: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("a body that stopped gets %s", resp.Status)
	}
}
