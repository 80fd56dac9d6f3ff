package edge_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

// frame is one WebSocket frame (RFC 6455 section 5.2), unmasked.
type frame struct {
	opcode  byte
	final   bool
	payload []byte
}

func readFrame(in io.Reader) (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return frame{}, err
	}
	size := uint64(head[1] & 0x7f)
	if size == 126 {
		var long [2]byte
		if _, err := io.ReadFull(in, long[:]); err != nil {
			return frame{}, err
		}
		size = uint64(binary.BigEndian.Uint16(long[:]))
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(in, mask[:]); err != nil {
			return frame{}, err
		}
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(in, payload); err != nil {
		return frame{}, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return frame{head[0] & 0x0f, head[0]&0x80 != 0, payload}, nil
}

// text is a text frame, masked with zeros when a client sends it.
func text(s string, client bool) []byte {
	f := []byte{0x81}
	if len(s) < 126 {
		f = append(f, byte(len(s)))
	} else {
		f = append(f, 126)
		f = binary.BigEndian.AppendUint16(f, uint16(len(s)))
	}
	if client {
		f[1] |= 0x80
		f = append(f, 0, 0, 0, 0)
	}
	return append(f, s...)
}

// webSocketApp hands out the app's end of each WebSocket.
func webSocketApp(t *testing.T) (*httptest.Server, <-chan net.Conn) {
	t.Helper()
	conns := make(chan net.Conn, 16)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		conns <- conn
	}))
	t.Cleanup(s.Close)
	return s, conns
}

type peer struct {
	net.Conn
	in *bufio.Reader
}

func (e *edgeProcess) upgrade(host, protocol string, ahead ...byte) peer {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		e.t.Fatal(err)
	}
	request := fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n", host, protocol)
	if _, err := conn.Write(append([]byte(request), ahead...)); err != nil {
		e.t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		e.t.Fatalf("upgrade: %v %v", resp, err)
	}
	return peer{conn, in}
}

func draining(d time.Duration, host string, addresses ...string) *routingv1.Route {
	r := serving(host, addresses...)
	r.Policy = &routingv1.RoutePolicy{Drain: durationpb.New(d)}
	return r
}

func wantGoingAway(t *testing.T, who string, in io.Reader) {
	t.Helper()
	f, err := readFrame(in)
	if err != nil {
		t.Fatalf("%s: no close frame: %v", who, err)
	}
	if f.opcode != 8 || len(f.payload) < 2 || binary.BigEndian.Uint16(f.payload) != 1001 {
		t.Fatalf("%s gets opcode %d, %q", who, f.opcode, f.payload)
	}
}

func TestAWebSocketOfAnInstanceThatLeftGetsACloseFrameAfterTheDrain(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	old, appEnds := webSocketApp(t)
	other, otherEnds := webSocketApp(t)
	const drain = 800 * time.Millisecond
	c.put(draining(drain, "other.test", addressOf(other)))
	c.applied(c.put(draining(drain, "ws.test", addressOf(old))))

	client, bystander := e.upgrade("ws.test", "websocket"), e.upgrade("other.test", "websocket")
	appEnd, otherEnd := <-appEnds, <-otherEnds
	defer appEnd.Close()
	defer otherEnd.Close()
	say := func(to io.Writer, from io.Reader, words string, fromClient bool) {
		t.Helper()
		if _, err := to.Write(text(words, fromClient)); err != nil {
			t.Fatal(err)
		}
		if f, err := readFrame(from); err != nil || string(f.payload) != words {
			t.Fatalf("%q arrives as %q, %v", words, f.payload, err)
		}
	}
	say(client, appEnd, "before", true)

	next, _ := webSocketApp(t)
	left := time.Now()
	c.applied(c.put(draining(drain, "ws.test", addressOf(next))))
	say(appEnd, client.in, "while it drains", false)
	// In the middle of a message: the close frame must wait for the frame's end.
	long := text(string(make([]byte, 1000)), false)
	if _, err := appEnd.Write(long[:500]); err != nil {
		t.Fatal(err)
	}
	wantGoingAway(t, "the app", appEnd)
	if took := time.Since(left); took < drain/2 || took > drain+5*time.Second {
		t.Errorf("the goodbye came after %s, the drain is %s", took, drain)
	}
	if _, err := appEnd.Write(append(long[500:], text("too late", false)...)); err != nil {
		t.Fatal(err)
	}
	if f, err := readFrame(client.in); err != nil || len(f.payload) != 1000 {
		t.Fatalf("the message in between arrives with %d bytes, %v", len(f.payload), err)
	}
	wantGoingAway(t, "the client", client.in)
	if rest, err := io.ReadAll(client.in); err != nil || len(rest) > 0 {
		t.Errorf("after the close frame: %q, %v", rest, err)
	}
	say(bystander, otherEnd, "still there", true)
	say(otherEnd, bystander.in, "so am I", false)
}

func TestAWebSocketStaysWhenItsInstanceComesBackInTime(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	server, appEnds := webSocketApp(t)
	const drain = 500 * time.Millisecond
	c.applied(c.put(draining(drain, "back.test", addressOf(server))))
	client := e.upgrade("back.test", "websocket")
	appEnd := <-appEnds
	defer appEnd.Close()
	c.applied(c.put(notServing("back.test", routingv1.RouteState_ROUTE_STATE_DOWN)))
	c.applied(c.put(draining(drain, "back.test", addressOf(server))))
	if err := client.SetReadDeadline(time.Now().Add(3 * drain)); err != nil {
		t.Fatal(err)
	}
	if f, err := readFrame(client.in); err == nil {
		t.Fatalf("it gets opcode %d", f.opcode)
	} else if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
		t.Fatalf("it was closed: %v", err)
	}
}

func TestWhatAClientSendsAheadOfTheSwitchArrives(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	server, appEnds := webSocketApp(t)
	c.applied(c.put(serving("ahead.test", addressOf(server))))
	e.upgrade("ahead.test", "websocket", text("early", true)...)
	appEnd := <-appEnds
	defer appEnd.Close()
	if f, err := readFrame(appEnd); err != nil || string(f.payload) != "early" {
		t.Fatalf("it arrives as %q, %v", f.payload, err)
	}
}

func TestOtherUpgradesAreClosedAfterTheDrain(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	server, appEnds := webSocketApp(t)
	c.applied(c.put(draining(400*time.Millisecond, "raw.test", addressOf(server))))
	client := e.upgrade("raw.test", "tcp")
	appEnd := <-appEnds
	defer appEnd.Close()
	c.applied(c.remove("raw.test"))
	if rest, err := io.ReadAll(client.in); err != nil || len(rest) > 0 {
		t.Errorf("the client reads %q, %v", rest, err)
	}
	if rest, err := io.ReadAll(appEnd); err != nil || len(rest) > 0 {
		t.Errorf("the app reads %q, %v", rest, err)
	}
}

func TestAnEventStreamEndsWithItsInstanceAndADownloadDoesNot(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	finish := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		_, _ = io.WriteString(w, "data: begun\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-finish:
			_, _ = io.WriteString(w, "finished")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	open := func(kind string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.http+"/?type="+kind, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "stream.test"
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	c.applied(c.put(draining(400*time.Millisecond, "stream.test", addressOf(server))))
	events, download := open("text/event-stream"), open("text/plain")
	defer events.Body.Close()
	defer download.Body.Close()
	c.applied(c.put(draining(400*time.Millisecond, "stream.test", addressOf(app(t, "next")))))
	if got, err := io.ReadAll(events.Body); err != nil || string(got) != "data: begun\n\n" {
		t.Errorf("the event stream is %q, %v", got, err)
	}
	close(finish)
	if got, err := io.ReadAll(download.Body); err != nil || string(got) != "data: begun\n\nfinished" {
		t.Errorf("the download is %q, %v", got, err)
	}
}
