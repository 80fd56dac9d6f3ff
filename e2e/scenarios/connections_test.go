package scenarios

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/slipway-paas/slipway/e2e/client"
)

// echoes is a connection to an app through the edge that stays open, as a
// WebSocket's does.
type echoes struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
}

func (a *app) upgrade() *echoes {
	a.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(a.s.Edge, "http://"))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { conn.Close() })
	e := &echoes{t: a.t, conn: conn, reader: bufio.NewReader(conn)}
	fmt.Fprintf(conn, "GET /echo HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", a.host)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		a.t.Fatal(err)
	}
	response, err := http.ReadResponse(e.reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		a.t.Fatalf("the edge does not pass an upgrade: %v %v", response, err)
	}
	return e
}

func (e *echoes) says(text string) {
	e.t.Helper()
	if _, err := fmt.Fprintln(e.conn, text); err != nil {
		e.t.Fatalf("the connection was cut before %q: %v", text, err)
	}
	line, err := e.reader.ReadString('\n')
	if err != nil || line != text+"\n" {
		e.t.Fatalf("said %q, heard %q: %v", text, line, err)
	}
}

func TestOtherAppsRoutesDoNotCutOpenConnections(t *testing.T) {
	t.Parallel()
	s := platform(t)
	image := push(t, s, "latest", "one")
	a := deploy(t, s, map[string]any{"image": image, "port": 8080})
	open := a.upgrade()
	open.says("hello")
	for i := range 3 {
		b := deploy(t, s, map[string]any{"image": image, "port": 8080, "subdomain": name(t, fmt.Sprint(i))})
		open.says("while another app comes")
		b.destroy()
		b.wait("destroyed")
		open.says("and goes")
	}
}

func TestARequestUnderWayOutlivesARestart(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	answered := make(chan string, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		// Longer than the drain: the app's own SIGTERM handling has its part too.
		answer, err := client.Visit(ctx, s.Edge, a.host, http.MethodGet, "/slow?ms=2500", nil)
		answered <- fmt.Sprint(answer.Status, err)
	}()
	a.do("restart")
	a.wait("running")
	if got := <-answered; got != "200<nil>" && got != "200 <nil>" {
		t.Errorf("a slow request that a restart overtook ended in %s", got)
	}
}

func TestTheEdgeDoesNotWaitForAnAppWhoseNetworkWent(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	list := a.containers()
	if len(list) != 1 {
		t.Fatalf("%d containers, want one", len(list))
	}
	// A connection that nobody's timeout ends: only probes can tell that the app is gone.
	open := a.upgrade()
	open.says("hello")
	cutOff(t, list[0].Labels["slipway.netns"])
	if _, err := open.reader.ReadString('\n'); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection to an app that is gone stays open: %v", err)
	}
}

// cutOff takes the network interface of a namespace away: no packet says so.
func cutOff(t *testing.T, namespace string) {
	t.Helper()
	ns, err := netns.GetFromName(namespace)
	if err != nil {
		t.Fatalf("find the container's network: %v", err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatalf("open the container's network: %v", err)
	}
	defer inside.Close()
	link, err := inside.LinkByName("eth0")
	if err == nil {
		err = inside.LinkSetDown(link)
	}
	if err != nil {
		t.Fatalf("cut the container off: %v", err)
	}
}

func TestTheEdgeServesTLSWithItsOwnAuthority(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	ask := func(host string) (string, error) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: host}}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.EdgeTLS+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		response, err := transport.RoundTrip(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
		return fmt.Sprint(response.StatusCode, " ", string(body)), err
	}
	got, err := ask(a.host)
	if err != nil || !strings.HasPrefix(got, "200 ") || !strings.Contains(got, a.host) {
		t.Errorf("over TLS: %s %v", got, err)
	}
	// Certificates are made for hosts that are ours, not for whatever is asked.
	if got, err := ask("nobody.example.com"); err == nil && !strings.HasPrefix(got, "404 ") {
		t.Errorf("a host that is nobody's: %s", got)
	}
}
