// Package node puts a node-agent together: Podman, the pool of network namespaces,
// NATS and the reconciler. It is what the command and the standalone daemon start.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
	nodeagent "github.com/slipway-paas/slipway/services/node-agent"
	"github.com/slipway-paas/slipway/services/node-agent/internal/natssecrets"
	"github.com/slipway-paas/slipway/services/node-agent/internal/podman"
	"github.com/slipway-paas/slipway/services/node-agent/netpool"
)

// Config is what a node is told.
type Config struct {
	NodeID             string   `koanf:"node-id" usage:"this node's id; the machine's name when empty"`
	PlatformID         string   `koanf:"platform-id" default:"slipway" usage:"which platform's containers these are"`
	DataDir            string   `koanf:"data-dir" usage:"directory for the agent's state"`
	PodmanRoot         string   `koanf:"podman-root" usage:"Podman's storage; <data-dir>/podman when empty"`
	MemoryMB           int      `koanf:"memory-mb" usage:"memory for instances; the machine's less a reserve when 0"`
	CPUMillicores      int      `koanf:"cpu-millicores" usage:"CPU for instances; all when 0"`
	InsecureRegistries []string `koanf:"insecure-registries" default:"127.0.0.1:5055" usage:"host:port of registries that speak plain HTTP"`
	// NamespacePool is how many network namespaces are kept ready; negative turns the
	// pool off, and containers join a bridge that Podman manages.
	NamespacePool int `koanf:"namespace-pool" default:"8" usage:"network namespaces kept ready; -1 uses Podman's bridge"`
	// PruneImagesAfter is how long an image stays that the agent fetched and nothing needs.
	PruneImagesAfter time.Duration `koanf:"prune-images-after" default:"30m" usage:"how long an image stays that nothing needs any more, 10s or longer"`
}

// Validate names the first setting at fault and fills in the node id.
func (c *Config) Validate() error {
	if c.NodeID == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("--node-id is not set and the machine has no name: %w", err)
		}
		c.NodeID = host
	}
	switch {
	case !subjects.ValidToken(c.NodeID):
		return fmt.Errorf("--node-id %q must be 1 to 128 letters, digits, hyphens or underscores", c.NodeID)
	case c.DataDir == "":
		return errors.New("--data-dir is required")
	case c.MemoryMB < 0 || c.CPUMillicores < 0:
		return errors.New("--memory-mb and --cpu-millicores must not be negative")
	case c.PruneImagesAfter < nodeagent.MinPruneAfter:
		return fmt.Errorf("--prune-images-after %v: use %v or longer, e.g. 30m", c.PruneImagesAfter, nodeagent.MinPruneAfter)
	}
	return nil
}

func (c *Config) owner() string { return c.PlatformID + "/" + c.NodeID }

// networkOwner differs for two agents on one machine even when their ids do not.
func (c *Config) networkOwner() string {
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		dir = c.DataDir
	}
	return c.owner() + "@" + dir
}

// Deps are the connections of the process. Metrics, Meter and Tracer may be nil.
type Deps struct {
	NATS      *nats.Conn
	JetStream jetstream.JetStream
	Facts     nodeagent.Facts
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Meter     metric.Meter
	Tracer    trace.Tracer
	Version   string
}

// Node is a node-agent with all that it needs.
type Node struct {
	*nodeagent.Service
	podman *podman.Podman
	pool   *netpool.Pool
}

// bucketPatience is how long Open waits for the platform to make its buckets.
const bucketPatience = 30 * time.Second

// Open starts Podman's service and prepares the agent; Run starts reconciling.
// Close it after Run has returned.
func Open(ctx context.Context, cfg Config, deps Deps) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Node{}
	if err := n.openRuntime(ctx, cfg, deps.Log, deps.Tracer); err != nil {
		return nil, err
	}
	desired, err := openView(ctx, deps, subjects.BucketDesired, func() *nodev1.DesiredInstance { return &nodev1.DesiredInstance{} })
	if err != nil {
		n.Close()
		return nil, err
	}
	nodes, err := openView(ctx, deps, subjects.BucketNodes, func() *nodev1.Node { return &nodev1.Node{} })
	if err != nil {
		n.Close()
		return nil, err
	}
	n.Service, err = nodeagent.New(nodeagent.Config{
		NodeID: cfg.NodeID, DataDir: cfg.DataDir, Version: deps.Version,
		MemoryMB: uint32(cfg.MemoryMB), CPUMillicores: uint32(cfg.CPUMillicores), PruneAfter: cfg.PruneImagesAfter,
	}, nodeagent.Deps{
		Runtime: n.podman, Desired: desired, Nodes: nodes, Facts: deps.Facts, Secrets: natssecrets.New(deps.NATS),
		Log: deps.Log, Metrics: deps.Metrics, Tracer: deps.Tracer,
	})
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Node) openRuntime(ctx context.Context, cfg Config, log *slog.Logger, tracer trace.Tracer) error {
	deps := podman.Deps{Log: log, Tracer: tracer}
	if cfg.NamespacePool >= 0 {
		pool, err := netpool.New(netpool.Config{Owner: cfg.networkOwner(), Size: cfg.NamespacePool}, log)
		if err != nil {
			log.WarnContext(ctx, "no network namespaces are made ahead; containers join Podman's bridge, which is slower", "reason", err)
		} else {
			n.pool, deps.Namespaces = pool, pool
		}
	}
	var err error
	n.podman, err = podman.New(ctx, podman.Config{
		Owner: cfg.owner(), NetworkOwner: cfg.networkOwner(), DataDir: cfg.DataDir, Root: cfg.PodmanRoot,
		PublishPorts: os.Geteuid() != 0, InsecureRegistries: cfg.InsecureRegistries,
	}, deps)
	if err != nil {
		n.Close()
	}
	return err
}

func openView[T proto.Message](ctx context.Context, deps Deps, bucket string, newT func() T) (*view.View[T], error) {
	options := []view.Option{view.WithLog(deps.Log)}
	if deps.Meter != nil {
		options = append(options, view.WithMeter(deps.Meter))
	}
	return backoff.Retry(ctx, func() (*view.View[T], error) {
		return view.Open(ctx, deps.JetStream, bucket, newT, options...)
	}, backoff.WithMaxElapsedTime(bucketPatience))
}

// Close ends Podman's service and the pool. Containers run on.
func (n *Node) Close() {
	if n.podman != nil {
		n.podman.Close()
	}
	if n.pool != nil {
		n.pool.Close()
	}
}

// Purge removes what an agent with this configuration left on the machine and a
// deleted data directory would not: its containers, networks, firewall rules and
// mounts. No agent may run with it meanwhile.
func Purge(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	n := &Node{}
	if err := n.openRuntime(ctx, cfg, log, nil); err != nil {
		return err
	}
	containers, err := n.podman.List(ctx)
	errs := []error{err}
	for _, c := range containers {
		errs = append(errs, n.podman.Remove(ctx, c.ID))
	}
	errs = append(errs, n.podman.RemoveImages(ctx), n.podman.RemoveBridge(ctx))
	n.podman.Close()
	if n.pool != nil {
		n.pool.Retain(nil, time.Now())
		errs = append(errs, n.pool.Destroy())
	}
	return errors.Join(append(errs, n.podman.Purge())...)
}
