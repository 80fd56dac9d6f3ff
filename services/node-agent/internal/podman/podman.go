// Package podman runs containers with Podman (4.3 or newer) through its API. It
// starts Podman's service itself, on a socket of its own and with a storage root
// of its own, so that several agents on one machine do not meet.
package podman

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/bindings/system"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/services/node-agent/netpool"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// Namespaces hands out network namespaces made ahead; *netpool.Pool is one.
type Namespaces interface {
	// Lease gives a namespace that nobody else has.
	Lease(ctx context.Context) (netpool.Lease, error)
	// Release destroys it. Releasing what is gone is no error.
	Release(name string)
	// Retain destroys every leased namespace of the pool that is not named and was
	// leased before the given time.
	Retain(names map[string]bool, before time.Time)
	// Check fails when the pool cannot have leased that namespace with that address.
	Check(name, ip string) error
}

// Config says where an agent's Podman lives.
type Config struct {
	// Owner marks the containers that are ours: the platform's and the node's id.
	Owner string
	// NetworkOwner names the agent's networks on the machine; empty means Owner.
	NetworkOwner string
	// DataDir holds the socket, the configuration and the network definitions.
	DataDir string
	// Root is Podman's storage root; empty means DataDir/podman.
	Root string
	// PublishPorts gives each container a port of the loopback address instead of
	// one of its own, which is how a rootless Podman's containers are reached.
	PublishPorts bool
	// InsecureRegistries are host:port of registries that speak plain HTTP.
	InsecureRegistries []string
}

// Deps are what the adapter needs from outside. Log is required.
type Deps struct {
	Log *slog.Logger
	// Namespaces may be nil: containers then join a bridge that Podman manages.
	Namespaces Namespaces
	// Tracer may be nil.
	Tracer trace.Tracer
}

// Podman implements runtime.Runtime.
type Podman struct {
	owner    string
	network  string // whose networks
	root     string
	run      string
	bridge   string
	publish  bool
	log      *slog.Logger
	tracer   trace.Tracer
	pool     Namespaces
	platform platform
	seccomp  string // path of the containers' profile; empty for Podman's own
	service  *service
	registry *registry

	// connection carries the bindings' client as a context value.
	connection context.Context

	mu sync.Mutex
	// ours is the containers known to be ours, by id.
	ours map[string]container
	// creating holds containers' namespaces that List cannot know yet.
	creating map[string]bool

	images knownImages

	bridgeMu   sync.Mutex
	bridgeMade bool
}

var _ runtime.Runtime = (*Podman)(nil)

// New starts Podman's service and returns when it answers. Close ends it; the
// containers run on.
func New(ctx context.Context, cfg Config, deps Deps) (*Podman, error) {
	if cfg.Owner == "" || cfg.DataDir == "" {
		return nil, errors.New("podman: owner and data directory are required")
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("podman: %w", err)
	}
	root := cfg.Root
	if root == "" {
		root = filepath.Join(dir, "podman")
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, fmt.Errorf("podman: %w", err)
	}
	networks := filepath.Join(dir, "networks")
	run := runDir(dir)
	temporary := filepath.Join(run, "libpod")
	for _, d := range []string{dir, root, networks, run, temporary} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("podman: make its directories: %w", err)
		}
	}
	plat, err := probePlatform()
	if err != nil {
		return nil, fmt.Errorf("podman: %w", err)
	}
	conf, err := writeConf(dir, plat)
	if err != nil {
		return nil, err
	}
	seccomp, err := writeSeccomp(dir)
	if err != nil {
		return nil, fmt.Errorf("podman: %w", err)
	}
	socket := filepath.Join(dir, "podman.sock")
	if len(socket) > longestSocket {
		socket = filepath.Join(run, "podman.sock")
	}
	args := []string{
		"--root", filepath.Join(root, "storage"), "--runroot", filepath.Join(run, "root"), "--tmpdir", temporary,
		"--network-config-dir", networks,
		"system", "service", "--time=0", "unix://" + socket,
	}
	svc, err := startService(ctx, socket, args, append(os.Environ(), "CONTAINERS_CONF="+conf), deps.Log)
	if err != nil {
		return nil, fmt.Errorf("podman: %w", err)
	}
	connection, err := connect(ctx, socket)
	if err != nil {
		svc.close()
		return nil, err
	}
	tracer := deps.Tracer
	if tracer == nil {
		tracer = noop.NewTracerProvider().Tracer("podman")
	}
	networkOwner := cfg.NetworkOwner
	if networkOwner == "" {
		networkOwner = cfg.Owner
	}
	return &Podman{
		owner: cfg.Owner, network: networkOwner, root: root, run: run, bridge: "slipway", publish: cfg.PublishPorts, log: deps.Log, tracer: tracer, pool: deps.Namespaces,
		platform: plat, seccomp: seccomp, service: svc, registry: newRegistry(cfg.InsecureRegistries), connection: connection,
		ours: map[string]container{}, creating: map[string]bool{},
	}, nil
}

// Close ends Podman's service. Containers are not touched.
func (p *Podman) Close() { p.service.close() }

func connect(ctx context.Context, socket string) (context.Context, error) {
	// The bound is the first request's; what is kept of the context are its values.
	ctx, cancel := context.WithTimeout(ctx, serviceStartTimeout)
	defer cancel()
	connection, err := bindings.NewConnection(ctx, "unix://"+socket)
	if err != nil {
		return nil, fmt.Errorf("podman: connect to its service: %w", err)
	}
	client, err := bindings.GetClient(connection)
	if err != nil {
		return nil, fmt.Errorf("podman: connect to its service: %w", err)
	}
	if t, ok := client.Client.Transport.(*http.Transport); ok {
		t.MaxIdleConnsPerHost = 16
	}
	return connection, nil
}

// longestSocket is a little under what the kernel allows a Unix socket's path.
const longestSocket = 100

// runDir is where Podman keeps what must not outlive a reboot, derived from the data
// directory. It is not inside it: Podman refuses a path above 50 characters, and
// knows a reboot by this directory being empty.
func runDir(dataDir string) string {
	sum := sha256.Sum256([]byte(dataDir))
	name := "slipway-" + hex.EncodeToString(sum[:6])
	if os.Geteuid() == 0 {
		return filepath.Join("/run", name)
	}
	if own := os.Getenv("XDG_RUNTIME_DIR"); own != "" {
		return filepath.Join(own, name)
	}
	return filepath.Join(os.TempDir(), name)
}

// Bounds of a request, so that a Podman that hangs holds nobody for ever.
const (
	callTime = 2 * time.Minute
	pullTime = 15 * time.Minute
)

// call is one request to Podman: a span, and a context that has the caller's end
// and the connection's client.
func (p *Podman) call(ctx context.Context, name string, attrs ...attribute.KeyValue) (context.Context, func(*error)) {
	return p.callWithin(ctx, callTime, name, attrs...)
}

func (p *Podman) callWithin(ctx context.Context, bound time.Duration, name string, attrs ...attribute.KeyValue) (context.Context, func(*error)) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	ctx, span := observe.Continue(ctx, p.tracer, "", "podman "+name, trace.SpanKindClient)
	span.SetAttributes(attrs...)
	return connected{ctx, p.connection}, func(err *error) {
		cancel()
		if *err != nil {
			*err = observe.Failed(span, fmt.Errorf("podman %s: %w", name, *err))
		}
		span.End()
	}
}

// connected is a caller's context that knows the connection too.
type connected struct {
	context.Context
	connection context.Context
}

func (c connected) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.connection.Value(key)
}

// Ping implements runtime.Runtime.
func (p *Podman) Ping(ctx context.Context) (err error) {
	ctx, end := p.call(ctx, "ping")
	defer end(&err)
	client, err := bindings.GetClient(ctx)
	if err != nil {
		return err
	}
	response, err := client.DoRequest(ctx, nil, http.MethodGet, "/_ping", nil, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return response.Process(nil)
}

// Info implements runtime.Runtime.
func (p *Podman) Info(ctx context.Context) (_ runtime.Info, err error) {
	ctx, end := p.call(ctx, "info")
	defer end(&err)
	info, err := system.Info(ctx, nil)
	if err != nil {
		return runtime.Info{}, err
	}
	cpus := info.Host.CPUs
	if cpus == 0 {
		cpus = goruntime.NumCPU()
	}
	return runtime.Info{
		Name:          fmt.Sprintf("podman %s, %s", info.Version.Version, p.platform.ociRuntime),
		Host:          info.Host.Hostname,
		MemoryBytes:   info.Host.MemTotal,
		CPUMillicores: int64(cpus) * 1000,
	}, nil
}
