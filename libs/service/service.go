// Package service is the life of a process: Main reads the configuration, sets up
// logs, traces and metrics, lets the command build its parts, serves them with
// health and metrics, and stops them in order on a signal.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"

	"github.com/slipway-paas/slipway/libs/config"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/rpc"
)

// Exit codes of Main.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// provisionTime bounds making the streams and buckets.
const provisionTime = 30 * time.Second

// Settings are what every service's command is told; its configuration embeds them.
type Settings struct {
	NATS      string `koanf:"nats" default:"nats://127.0.0.1:4222" usage:"NATS server, nats://host:port; those of a cluster with commas between"`
	NATSKey   string `koanf:"nats-key" usage:"file with the NATS key (nkey seed) to connect with"`
	Replicas  int    `koanf:"nats-replicas" default:"1" usage:"copies of each stream: 1 on one NATS server, 3 in a cluster"`
	RPCListen string `koanf:"rpc-listen" usage:"host:port for gRPC, of a service that answers calls"`
	// TLSCA and TLSIdentity are as in rpc.TLS.
	TLSCA       string `koanf:"tls-ca" usage:"PEM file with the authority of the services' certificates, for gRPC between services (see slipwayd certs)"`
	TLSIdentity string `koanf:"tls-identity" usage:"PEM file with this service's certificate and key, with --tls-ca"`
	OpsListen   string `koanf:"ops-listen" default:"127.0.0.1:0" usage:"host:port for /metrics, /healthz and /readyz"`
}

// Common gives Main the settings of a configuration that embeds them.
func (s *Settings) Common() *Settings { return s }

// Configuration is a struct for config.Load that embeds Settings.
type Configuration interface{ Common() *Settings }

// tls is who the service with that name is to others, slipway-scheduler being scheduler.
func (s *Settings) tls(name string) rpc.TLS {
	return rpc.TLS{Service: strings.TrimPrefix(name, "slipway-"), CA: s.TLSCA, Identity: s.TLSIdentity}
}

// Process is what a command builds its parts on.
type Process struct {
	Name     string
	Version  string
	Log      *slog.Logger
	Observer *observe.Observer

	settings *Settings
	tls      rpc.TLS
	group    *Group
	server   *rpc.Server
	closers  []func()
}

// Build makes a command's parts and adds them to the process.
type Build func(ctx context.Context, p *Process) error

// Main runs the command called name and ends the process. configuration is a
// pointer to what the flags fill before build is called.
func Main(name, version string, configuration Configuration, build Build) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// After the first signal the second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(Run(ctx, name, version, os.Args[1:], os.Environ(), os.Stdout, os.Stderr, configuration, build))
}

// Run is Main without the process: it returns the exit code when ctx has ended and
// everything has stopped, or when something failed.
func Run(ctx context.Context, name, version string, args, environ []string, stdout, stderr io.Writer, configuration Configuration, build Build) int {
	var help *config.Help
	switch err := config.Load(name, args, environ, configuration); {
	case errors.As(err, &help):
		fmt.Fprint(stdout, help.Text)
		return ExitOK
	case errors.Is(err, config.ErrVersion):
		fmt.Fprintln(stdout, name, version)
		return ExitOK
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitUsage
	}
	tls := configuration.Common().tls(name)
	if err := tls.Validate(time.Now()); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitUsage
	}
	observer, err := observe.Setup(ctx, name, version, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitUsage
	}
	p := &Process{
		Name: name, Version: version, Log: observer.Log, Observer: observer,
		settings: configuration.Common(), tls: tls, group: NewGroup(observer.Log),
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if err := observer.Shutdown(ctx); err != nil {
			observer.Log.Warn("last traces could not be sent", "error", err)
		}
	}()
	if err := p.run(ctx, build); err != nil {
		p.Log.Error("stopped", "error", err)
		return ExitFailed
	}
	p.Log.Info("stopped")
	return ExitOK
}

func (p *Process) run(ctx context.Context, build Build) error {
	defer p.close()
	if err := build(ctx, p); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	checks := p.group.Checks()
	if p.server != nil {
		listener, err := p.listenRPC()
		if err != nil {
			return err
		}
		p.group.Add("rpc", RunFunc(func(ctx context.Context) error { return p.server.ServeUntil(ctx, listener) }))
		p.group.Add("rpc health", RunFunc(func(ctx context.Context) error { return followReadiness(ctx, checks, p.server.SetServing) }))
		p.Log.Info("answering gRPC", "address", listener.Addr().String())
	}
	ops, err := ListenOps(ctx, p.settings.OpsListen, p.Observer.Metrics(), checks)
	if err != nil {
		return err
	}
	p.group.Add("ops", ops)
	p.Log.Info("started", "version", p.Version, "ops", ops.Address())
	return p.group.Run(ctx)
}

// Add adds a part that runs until the process stops; when it has Ready, the
// process is ready only when it is.
func (p *Process) Add(name string, part Runnable) { p.group.Add(name, part) }

// RPC is the process's gRPC server, to register on; asking for it makes it serve
// on --rpc-listen. With TLS it answers the named services only.
func (p *Process) RPC(callers ...string) *rpc.Server {
	if p.server == nil {
		p.server = p.tls.NewServer(p.Log, callers...)
	}
	return p.server
}

// Dial makes a client of the service with that name, closed when the process has
// stopped. With TLS the other side must prove that name; without, the target must be
// on this machine.
func (p *Process) Dial(name, target string) (*grpc.ClientConn, error) {
	conn, err := p.tls.Dial(name, target)
	if err != nil {
		return nil, err
	}
	p.onClose(func() { _ = conn.Close() }) // closing twice is its only error
	return conn, nil
}

// NATS connects as --nats and --nats-key say, until the process has stopped. The
// platform's own services see to it that streams and buckets are there, so that they
// may start in any order. A node connects by NATSOfNode.
func (p *Process) NATS(role natsconn.Role) (*nats.Conn, jetstream.JetStream, error) {
	return p.connectNATS(role, "")
}

// NATSOfNode connects as NATS does, as that node.
func (p *Process) NATSOfNode(id string) (*nats.Conn, jetstream.JetStream, error) {
	return p.connectNATS(natsconn.RoleNode, id)
}

func (p *Process) connectNATS(role natsconn.Role, node string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := natsconn.Connect(natsconn.Config{
		URL: p.settings.NATS, SeedFile: p.settings.NATSKey, Role: role, Node: node, Name: p.Name, Log: p.Log,
	})
	if err != nil {
		return nil, nil, err
	}
	p.onClose(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, nil, fmt.Errorf("use JetStream: %w", err)
	}
	if role == natsconn.RolePlatform {
		ctx, cancel := context.WithTimeout(context.Background(), provisionTime)
		defer cancel()
		if err := natsconn.Provision(ctx, js, p.settings.Replicas); err != nil {
			return nil, nil, err
		}
	}
	return nc, js, nil
}

func (p *Process) onClose(f func()) { p.closers = append(p.closers, f) }

func (p *Process) close() {
	for i := len(p.closers) - 1; i >= 0; i-- {
		p.closers[i]()
	}
}
