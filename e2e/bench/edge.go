package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/e2e/stack"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// edgeSection holds slipway-edge beside plain Caddy and the app itself, and its table
// of 50,000 hosts beside one of ten. What is compared runs in turns, and the figure is
// the median of the ratios: the machine is not quiet.
func edgeSection(ctx context.Context, b *bench) (err error) {
	bin, err := stack.Binaries(b.bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "slipway-bench-")
	if err != nil {
		return fmt.Errorf("make a directory for the edges: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	app, err := startAnswerer()
	if err != nil {
		return err
	}
	defer app.Close()
	plain, err := startPlainCaddy(ctx, dir, app.Addr)
	if err != nil {
		return err
	}
	defer plain.stop()

	var tables []*edgeTable
	for _, hosts := range []int{10, 1000, 50_000} {
		t, err := startEdgeTable(ctx, bin, filepath.Join(dir, strconv.Itoa(hosts)), hosts, app.Addr)
		if err != nil {
			return err
		}
		defer t.stop()
		tables = append(tables, t)
		took, err := t.changes(ctx, 300, app.Addr)
		if err != nil {
			return err
		}
		slices.Sort(took)
		say(fmt.Sprintf("route change, %d routes, until the edge has it", hosts),
			fmt.Sprintf("median %s, p99 %s", ms(took[len(took)/2]), ms(took[len(took)*99/100])), "p99 under 5 ms, flat, from the write's answer on")
	}
	few, many := tables[0], tables[len(tables)-1]
	return errors.Join(
		race(ctx, "edge, 64 connections, beside plain Caddy", "at least 1.0x", few.url, plain.url),
		race(ctx, "edge, 64 connections, beside the app itself", "nginx was 0.48x", few.url, "http://"+app.Addr+"/"),
		raceHosts(ctx, dir, few, many),
	)
}

const laps = 5

// race compares requests per second at two addresses, lap by lap.
func race(ctx context.Context, what, bounds, ours, theirs string) error {
	return inTurns(what, bounds, func() (float64, float64, error) {
		a, err := wrk(ctx, ours, "Host: app-0.test")
		if err != nil {
			return 0, 0, err
		}
		b, err := wrk(ctx, theirs, "Host: app-0.test")
		return a, b, err
	})
}

// raceHosts compares a table of many hosts, all of them asked for, with one of few.
func raceHosts(ctx context.Context, dir string, few, many *edgeTable) error {
	script := filepath.Join(dir, "hosts.lua")
	const lua = `
local n = tonumber(os.getenv("HOSTS"))
function request()
  return wrk.format("GET", "/", { Host = "app-" .. math.random(0, n - 1) .. ".test" })
end`
	if err := os.WriteFile(script, []byte(lua), 0o600); err != nil {
		return fmt.Errorf("write wrk's script: %w", err)
	}
	ask := func(t *edgeTable) (float64, error) {
		return wrkWith(ctx, []string{"HOSTS=" + strconv.Itoa(t.hosts)}, "-s", script, t.url)
	}
	return inTurns(fmt.Sprintf("edge with %d hosts beside %d", many.hosts, few.hosts), "at least 0.95x", func() (float64, float64, error) {
		a, err := ask(many)
		if err != nil {
			return 0, 0, err
		}
		b, err := ask(few)
		return a, b, err
	})
}

func inTurns(what, bounds string, lap func() (ours, theirs float64, err error)) error {
	var ours, theirs, ratios []float64
	for range laps {
		a, b, err := lap()
		if err != nil {
			return err
		}
		ours, theirs, ratios = append(ours, a), append(theirs, b), append(ratios, ratio(a, b))
	}
	compare(what, fmt.Sprintf("%.0f/s", middle(ours)), fmt.Sprintf("%.0f/s", middle(theirs)), middle(ratios), bounds)
	return nil
}

// startAnswerer is an app that answers a kilobyte at once.
func startAnswerer() (*http.Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the app: %w", err)
	}
	body := []byte(strings.Repeat("x", 1024))
	s := &http.Server{Addr: listener.Addr().String(), ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		// A failed write means that wrk has hung up.
		_, _ = w.Write(body)
	})}
	go func() { _ = s.Serve(listener) }() // ends with Close
	return s, nil
}

// child is a program of this section.
type child struct {
	url string
	cmd *exec.Cmd
}

func startChild(ctx context.Context, url string, program string, args ...string) (*child, error) {
	c := &child{url: url, cmd: exec.CommandContext(ctx, program, args...)}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		req.Host = "app-0.test"
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			if err := res.Body.Close(); err == nil && res.StatusCode == http.StatusOK {
				return c, nil
			}
		}
		select {
		case <-ctx.Done():
			c.stop()
			return nil, fmt.Errorf("wait for %s: %w", program, errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *child) stop() {
	// It holds nothing that outlives it.
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// startPlainCaddy builds and starts Caddy as the edge's module has it, with its own
// reverse proxy and one route.
func startPlainCaddy(ctx context.Context, dir, upstream string) (*child, error) {
	program := filepath.Join(dir, "plain-caddy")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program,
		"github.com/slipway-paas/slipway/services/proxy-config/edge/bench/plain-caddy")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build plain Caddy: %w: %s", err, out)
	}
	listen, err := unusedAddress()
	if err != nil {
		return nil, err
	}
	return startChild(ctx, "http://"+listen+"/", program, listen, upstream)
}

// edgeTable is an edge with a table of so many hosts, and the NATS server it comes from.
type edgeTable struct {
	*child
	hosts  int
	nats   *natsconn.Embedded
	nc     *nats.Conn
	routes jetstream.KeyValue
}

func startEdgeTable(ctx context.Context, bin, dir string, hosts int, upstream string) (t *edgeTable, err error) {
	quiet := slog.New(slog.DiscardHandler)
	keys, err := natsconn.EnsureKeys(filepath.Join(dir, "keys"))
	if err != nil {
		return nil, err
	}
	t = &edgeTable{hosts: hosts}
	t.nats, err = natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: filepath.Join(dir, "nats"), Keys: keys, Log: quiet})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			t.stop()
		}
	}()
	if t.nc, err = natsconn.Connect(natsconn.Config{URL: t.nats.URL(), SeedFile: t.nats.SeedFile(natsconn.RolePlatform), Name: "bench", Log: quiet}); err != nil {
		return nil, err
	}
	js, err := jetstream.New(t.nc)
	if err != nil {
		return nil, fmt.Errorf("set up JetStream: %w", err)
	}
	if t.routes, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: subjects.BucketRoutes, History: 1}); err != nil {
		return nil, fmt.Errorf("make the bucket of routes: %w", err)
	}
	for i := range hosts {
		if err := t.put(i, hosts, upstream); err != nil {
			return nil, err
		}
	}
	listen, err := unusedAddress()
	if err != nil {
		return nil, err
	}
	metrics, err := unusedAddress()
	if err != nil {
		return nil, err
	}
	t.child, err = startChild(ctx, "http://"+listen+"/", filepath.Join(bin, "slipway-edge"),
		"--nats", t.nats.URL(), "--nats-creds", keys.SeedFile(natsconn.RoleEdge), "--http", listen, "--https", "",
		"--metrics", metrics, "--data-dir", filepath.Join(dir, "edge"), "--log-level", "error")
	return t, err
}

// put writes one of many routes; only each thousandth, and the last, is waited for.
func (t *edgeTable) put(i, of int, upstream string) error {
	subject, value, err := benchRoute(i, upstream)
	if err != nil {
		return err
	}
	if i%1000 == 999 || i == of-1 {
		_, err = t.nc.Request(subject, value, 30*time.Second)
	} else {
		err = t.nc.Publish(subject, value)
	}
	if err != nil {
		return fmt.Errorf("write route %d: %w", i, err)
	}
	return nil
}

func benchRoute(i int, upstream string) (subject string, value []byte, err error) {
	host := fmt.Sprintf("app-%d.test", i)
	value, err = proto.Marshal(&routingv1.Route{
		// An id as the platform makes them: edges take note of requests by it.
		Host: host, OrgId: "bench", DeploymentId: fmt.Sprintf("app-%d", i), State: routingv1.RouteState_ROUTE_STATE_SERVING,
		Upstreams: []*routingv1.Upstream{{InstanceId: "i1", Address: upstream}},
	})
	if err != nil {
		return "", nil, fmt.Errorf("encode route %d: %w", i, err)
	}
	return subjects.OfKey(subjects.BucketRoutes, subjects.HostKey(host)), value, nil
}

// changes measures from the answer to a route's write to the edge's acknowledgement.
func (t *edgeTable) changes(ctx context.Context, n int, upstream string) ([]time.Duration, error) {
	acks := make(chan *routingv1.EdgeApplied, 1024)
	heard, err := t.nc.Subscribe(subjects.AllEdgesApplied, func(m *nats.Msg) {
		ack := &routingv1.EdgeApplied{}
		if proto.Unmarshal(m.Data, ack) == nil {
			acks <- ack
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listen to the edge: %w", err)
	}
	defer func() { _ = heard.Unsubscribe() }()
	var took []time.Duration
	for i := range n {
		_, value, err := benchRoute(i%t.hosts, upstream)
		if err != nil {
			return nil, err
		}
		revision, err := t.routes.Put(ctx, fmt.Sprintf("app-%d.test", i%t.hosts), value)
		if err != nil {
			return nil, fmt.Errorf("change a route: %w", err)
		}
		// The write itself is JetStream's and on disk: what follows is the edge's.
		began := time.Now()
		for seen := uint64(0); seen < revision; {
			select {
			case ack := <-acks:
				seen = ack.GetRevision()
			case <-ctx.Done():
				return nil, fmt.Errorf("wait for the edge: %w", ctx.Err())
			}
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

func (t *edgeTable) stop() {
	if t.child != nil {
		t.child.stop()
	}
	if t.nc != nil {
		t.nc.Close()
	}
	t.nats.Stop()
}

func unusedAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	return l.Addr().String(), l.Close()
}
