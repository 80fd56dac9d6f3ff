package edge_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// kill ends the edge as a power cut would.
func (e *edgeProcess) kill() {
	e.t.Helper()
	if err := e.cmd.Process.Kill(); err != nil {
		e.t.Fatal(err)
	}
	<-e.done
}

// again starts the edge as it was started before, and does not wait for it.
func (e *edgeProcess) again() {
	e.t.Helper()
	cmd, done := exec.Command(e.cmd.Path, e.cmd.Args[1:]...), make(chan struct{})
	cmd.Env, cmd.Stdout, cmd.Stderr = e.cmd.Env, e.log, e.log
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.cmd, e.done = cmd, done
	go func() { defer close(done); _ = cmd.Wait() }()
}

// listens waits for the edge's first connection and returns it.
func listens(t *testing.T, address string) net.Conn {
	t.Helper()
	var conn net.Conn
	eventually(t, "the edge listens again", func() bool {
		var err error
		conn, err = net.DialTimeout("tcp", address, time.Second)
		return err == nil
	})
	return conn
}

// balancer passes connections on to a member that takes them, in turns.
func balancer(t *testing.T, members ...string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var turn atomic.Uint64
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				for range 2 * len(members) {
					edge, err := net.Dial("tcp", members[turn.Add(1)%uint64(len(members))])
					if err != nil {
						continue
					}
					defer edge.Close()
					go func() { _, _ = io.Copy(edge, client); _ = edge.Close() }()
					_, _ = io.Copy(client, edge)
					return
				}
			}()
		}
	}()
	return l.Addr().String()
}

// visitors ask until they are stopped. again is what a browser does when the
// connection of a request without side effects broke before the answer.
func visitors(ctx context.Context, n int, address, host string, again bool, asked, broke *atomic.Int64, failures chan<- string) (wait func()) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			transport := &http.Transport{DisableKeepAlives: i%2 == 0}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: patience}
			for ctx.Err() == nil {
				failure := ask(client, address, host, false)
				for retry := 0; again && retry < 3 && brokeOff(failure); retry++ {
					broke.Add(1)
					failure = ask(client, address, host, false)
				}
				if failure != "" {
					failures <- failure
				}
				asked.Add(1)
			}
		})
	}
	return all.Wait
}

// brokeOff tells a connection that ended early from an answer that is not right.
func brokeOff(failure string) bool {
	return failure != "" && (!strings.HasPrefix(failure, "GET: ") || !strings.HasSuffix(failure, "<nil>"))
}

func TestOneOfTwoEdgesIsKilledAndComesBackTenTimes(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	const hosts = 2000
	upstream := newInstance(t, "GET 0", func() { time.Sleep(time.Millisecond) })
	for i := range hosts {
		c.put(serving(fmt.Sprintf("app-%d.test", i), addressOf(upstream.Server)))
	}
	last := fmt.Sprintf("app-%d.test", hosts-1)
	stays, dies := c.edge(t.TempDir(), "--edge-id", "stays"), c.edge(t.TempDir(), "--edge-id", "dies")
	shared := balancer(t, stays.http, dies.http)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var asked, broke atomic.Int64
	failures := make(chan string, 10_000)
	waitDirect := visitors(ctx, 2, stays.http, last, false, &asked, &broke, failures)
	waitShared := visitors(ctx, 6, shared, last, true, &asked, &broke, failures)
	for range 10 {
		before := asked.Load()
		eventually(t, "requests flow", func() bool { return asked.Load() > before+50 })
		dies.kill()
		before = asked.Load()
		eventually(t, "requests flow while one edge is gone", func() bool { return asked.Load() > before+50 })
		dies.again()
		// The very first connection it takes finds every host.
		conn := listens(t, dies.http)
		if res := roundTrip(t, conn, http.MethodGet, last, nil); res.StatusCode != http.StatusOK {
			t.Errorf("the first answer of an edge that came back is %s", res.Status)
		}
	}
	stop()
	waitDirect()
	waitShared()
	close(failures)
	failed := 0
	for f := range failures {
		if failed++; failed <= 5 {
			t.Error(f)
		}
	}
	t.Logf("%d requests, %d of them were sent again because the edge that was killed had them, %d failed", asked.Load(), broke.Load(), failed)
	if failed > 0 {
		t.Errorf("%d requests failed", failed)
	}
}

func TestTwoEdgesShareOneAddress(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	c.put(serving("shared.test", addressOf(app(t, "GET 0"))))
	address := freeAddress(t)
	one := c.edge(t.TempDir(), "--http", address, "--edge-id", "one")
	two := c.edge(t.TempDir(), "--http", address, "--edge-id", "two")
	served := func(e *edgeProcess) bool { return !strings.Contains(e.figures("slipway_edge_connections"), " 0") }
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	}()
	eventually(t, "both take connections", func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		return served(one) && served(two)
	})
	one.kill()
	for range 50 {
		if failure := ask(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, address, "shared.test", false); failure != "" {
			t.Fatalf("with one of them gone: %s", failure)
		}
	}
}

// figures is the line of /metrics that begins with the name.
func (e *edgeProcess) figures(name string) string {
	e.t.Helper()
	resp, err := http.Get("http://" + e.metrics + "/metrics")
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, name+" ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func TestAnEdgeThatHasNothingToServeFromDoesNotListen(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	dir := t.TempDir()
	e := c.edge(dir)
	c.applied(c.put(serving("shop.test", addressOf(app(t, "shop")))))
	if code := e.terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	c.stop()

	e.again()
	_ = listens(t, e.http).Close()
	if got := e.get("shop.test"); got.body != "shop" {
		t.Errorf("from disk it answers %d", got.status)
	}
	if away := e.figures("slipway_edge_away_seconds"); e.figures("slipway_edge_connected") != "slipway_edge_connected 0" || away == "" || strings.HasSuffix(away, " 0") {
		t.Errorf("its figures say %q, %q", e.figures("slipway_edge_connected"), away)
	}
	e.kill()

	fresh := t.TempDir()
	for i, arg := range e.cmd.Args {
		if arg == dir {
			e.cmd.Args[i] = fresh
		}
	}
	e.again()
	// Longer than an edge with a copy looks for the control plane.
	for deadline := time.Now().Add(2500 * time.Millisecond); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", e.http); err == nil {
			_ = conn.Close()
			t.Fatal("it listens without a table")
		}
	}
	c.start()
	_ = listens(t, e.http).Close()
	if got := e.get("shop.test"); got.body != "shop" {
		t.Errorf("with the control plane back it answers %d", got.status)
	}
}

func TestAnEdgeThatIsCutOffServesAndSaysSo(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	c.applied(c.put(serving("shop.test", addressOf(app(t, "shop")))))
	if e.figures("slipway_edge_connected") != "slipway_edge_connected 1" || e.figures("slipway_edge_away_seconds") != "slipway_edge_away_seconds 0" {
		t.Errorf("connected, it says %q, %q", e.figures("slipway_edge_connected"), e.figures("slipway_edge_away_seconds"))
	}
	c.stop()
	eventually(t, "it says that it is cut off", func() bool {
		away := e.figures("slipway_edge_away_seconds")
		return e.figures("slipway_edge_connected") == "slipway_edge_connected 0" && away != "" && away != "slipway_edge_away_seconds 0"
	})
	if got := e.get("shop.test"); got.body != "shop" {
		t.Errorf("cut off it answers %d", got.status)
	}
	c.start()
	eventually(t, "it says that it is back", func() bool { return e.figures("slipway_edge_connected") == "slipway_edge_connected 1" })
}
