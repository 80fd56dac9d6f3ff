package edge_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/proxy-config/edge"
)

// asEdge makes this test binary be slipway-edge: Caddy is one in a process, and
// signals, exit codes and restarts are part of what is tested.
const asEdge = "TEST_BINARY_IS_SLIPWAY_EDGE"

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(asEdge) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		context.AfterFunc(ctx, stop)
		os.Exit(edge.Main(ctx, "test", os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// control is the part of the control plane that an edge sees: NATS with roles,
// and somebody who writes routes and hears acknowledgements.
type control struct {
	t       testing.TB
	address string
	dir     string
	keys    natsconn.Keys
	server  *natsconn.Embedded
	nc      *nats.Conn
	routes  jetstream.KeyValue

	mu      sync.Mutex
	acks    []*routingv1.EdgeApplied
	reports []*edgev1.CertificateReport
}

func newControl(t testing.TB) *control {
	t.Helper()
	c := &control{t: t, address: freeAddress(t), dir: t.TempDir()}
	keys, err := natsconn.EnsureKeys(filepath.Join(c.dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	c.keys = keys
	c.start()
	t.Cleanup(func() { c.stop() })
	return c
}

func (c *control) start() {
	c.t.Helper()
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{
		Listen: c.address, StoreDir: filepath.Join(c.dir, "store"), Keys: c.keys, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.server = server
	c.nc, err = natsconn.Connect(natsconn.Config{
		URL: server.URL(), SeedFile: server.SeedFile(natsconn.RolePlatform), Name: "test", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	js, err := jetstream.New(c.nc)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := natsconn.Provision(c.t.Context(), js, 1); err != nil {
		c.t.Fatal(err)
	}
	c.routes, err = js.KeyValue(c.t.Context(), subjects.BucketRoutes)
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = c.nc.Subscribe(subjects.AllEdgesApplied, func(m *nats.Msg) {
		ack := &routingv1.EdgeApplied{}
		if err := proto.Unmarshal(m.Data, ack); err != nil {
			c.t.Errorf("acknowledgement on %s: %v", m.Subject, err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.acks = append(c.acks, ack)
	})
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = c.nc.Subscribe(subjects.AllEdgeCertificates, func(m *nats.Msg) {
		report := &edgev1.CertificateReport{}
		if err := proto.Unmarshal(m.Data, report); err != nil {
			c.t.Errorf("report on %s: %v", m.Subject, err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.reports = append(c.reports, report)
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *control) stop() {
	if c.nc != nil {
		c.nc.Close()
	}
	c.server.Stop()
}

// rebuild makes the bucket anew: it is empty and counts from one again.
func (c *control) rebuild() {
	c.t.Helper()
	js, err := jetstream.New(c.nc)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := js.DeleteKeyValue(c.t.Context(), subjects.BucketRoutes); err != nil {
		c.t.Fatal(err)
	}
	// The server may still be removing the old bucket's files.
	eventually(c.t, "the bucket is made anew", func() bool {
		c.routes, err = js.CreateKeyValue(c.t.Context(), jetstream.KeyValueConfig{Bucket: subjects.BucketRoutes, History: 1})
		return err == nil
	})
}

// put writes a route and returns its revision.
func (c *control) put(r *routingv1.Route) uint64 {
	c.t.Helper()
	value, err := proto.Marshal(r)
	if err != nil {
		c.t.Fatal(err)
	}
	rev, err := c.routes.Put(c.t.Context(), subjects.HostKey(r.GetHost()), value)
	if err != nil {
		c.t.Fatal(err)
	}
	return rev
}

// remove deletes a route and returns the revision of the deletion.
func (c *control) remove(host string) uint64 {
	c.t.Helper()
	if err := c.routes.Delete(c.t.Context(), subjects.HostKey(host)); err != nil {
		c.t.Fatal(err)
	}
	status, err := c.routes.Status(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return status.(*jetstream.KeyValueBucketStatus).StreamInfo().State.LastSeq
}

// applied waits until an edge acknowledged the revision.
func (c *control) applied(revision uint64) {
	c.t.Helper()
	c.heard(fmt.Sprintf("revision %d applied", revision), func(a *routingv1.EdgeApplied) bool { return a.GetRevision() >= revision })
}

func (c *control) heard(what string, match func(*routingv1.EdgeApplied) bool) {
	c.t.Helper()
	eventually(c.t, what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, a := range c.acks {
			if match(a) {
				return true
			}
		}
		return false
	})
}

// edgeProcess is a running slipway-edge.
type edgeProcess struct {
	t                    testing.TB
	http, https, metrics string
	cmd                  *exec.Cmd
	done                 chan struct{}
	log                  *lockedBuffer
}

func (c *control) edge(dataDir string, flags ...string) *edgeProcess {
	c.t.Helper()
	return c.edgeAt(freeAddress(c.t), freeAddress(c.t), dataDir, flags...)
}

// edgeAt starts an edge on the addresses for HTTP and HTTPS, and waits until it listens.
func (c *control) edgeAt(plain, https, dataDir string, flags ...string) *edgeProcess {
	c.t.Helper()
	e := c.begin(plain, https, dataDir, flags...)
	e.listens()
	return e
}

func (c *control) begin(plain, https, dataDir string, flags ...string) *edgeProcess {
	c.t.Helper()
	e := &edgeProcess{
		t: c.t, http: plain, https: https, metrics: freeAddress(c.t),
		done: make(chan struct{}), log: &lockedBuffer{},
	}
	args := append([]string{
		"--nats", "nats://" + c.address, "--nats-creds", c.keys.SeedFile(natsconn.RoleEdge),
		"--http", e.http, "--https", e.https, "--metrics", e.metrics, "--data-dir", dataDir,
	}, flags...)
	e.cmd = exec.Command(os.Args[0], args...)
	e.cmd.Env = []string{asEdge + "=1", "HOME=" + filepath.Join(dataDir, "home"), "PATH=" + os.Getenv("PATH")}
	e.cmd.Stdout, e.cmd.Stderr = e.log, e.log
	if err := e.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() { defer close(e.done); _ = e.cmd.Wait() }()
	c.t.Cleanup(func() {
		_ = e.cmd.Process.Kill()
		<-e.done
		if c.t.Failed() {
			c.t.Logf("slipway-edge said:\n%s", e.log)
		}
	})
	return e
}

func (e *edgeProcess) listens() {
	e.t.Helper()
	eventually(e.t, "edge listens", func() bool {
		resp, err := http.Get("http://" + e.metrics + "/ready")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	})
}

// js is JetStream with the platform's rights.
func (c *control) js() jetstream.JetStream {
	c.t.Helper()
	js, err := jetstream.New(c.nc)
	if err != nil {
		c.t.Fatal(err)
	}
	return js
}

// terminate sends SIGTERM and returns the exit code.
func (e *edgeProcess) terminate() int {
	e.t.Helper()
	e.signal()
	return e.exitCode()
}

func (e *edgeProcess) signal() {
	e.t.Helper()
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		e.t.Fatal(err)
	}
}

func (e *edgeProcess) exitCode() int {
	e.t.Helper()
	select {
	case <-e.done:
		return e.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		e.t.Fatal("the edge does not end")
		return -1
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (e *edgeProcess) get(host string, header ...string) answer {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, "http://"+e.http+"/", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Host = host
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := noRedirects.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// dialTLS shakes hands as a client that asks for the host.
func (e *edgeProcess) dialTLS(host string) (*tls.Conn, error) {
	return e.dialTLSAs(host, "h2", "http/1.1")
}

func (e *edgeProcess) dialTLSAs(host string, protocols ...string) (*tls.Conn, error) {
	return tls.Dial("tcp", e.https, &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: protocols})
}

// app is an instance that answers with its name.
func app(t testing.TB, name string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(s.Close)
	return s
}

func addressOf(s *httptest.Server) string { return s.Listener.Addr().String() }

func serving(host string, addresses ...string) *routingv1.Route {
	r := &routingv1.Route{Host: host, State: routingv1.RouteState_ROUTE_STATE_SERVING}
	for i, a := range addresses {
		r.Upstreams = append(r.Upstreams, &routingv1.Upstream{InstanceId: fmt.Sprintf("i%d", i), Address: a})
	}
	return r
}

func notServing(host string, state routingv1.RouteState) *routingv1.Route {
	return &routingv1.Route{Host: host, State: state}
}

// nextPort counts through ports below those that the system gives to outgoing
// connections: an address that is free now stays free for the test.
var nextPort atomic.Int32

func freeAddress(t testing.TB) string {
	t.Helper()
	const first, count = 12000, 18000
	for range count {
		port := first + (int32(os.Getpid())*101+nextPort.Add(1))%count
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(l.b.String())
}
