// Package standalone is the whole platform in one process: every service joined in
// memory, an embedded NATS server, a private PostgreSQL and the edge as children.
// The services are the same ones that run as processes of their own; see wiring.go.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/services/standalone/internal/edge"
	"github.com/slipway-paas/slipway/services/standalone/internal/lock"
)

// ErrStopApps is the cause to cancel Run's context with when the apps' containers
// are to be stopped too. With any other cause they run on, and so are adopted by the
// next daemon.
var ErrStopApps = errors.New("stop the apps too")

// dataDirMode lets others pass through, to the database's directory; what is secret is
// closed by itself.
const dataDirMode = 0o711

// Options are what Run needs beside the operator's configuration.
type Options struct {
	Version string
	// EdgeProgram is the path of slipway-edge.
	EdgeProgram string
	Observer    *observe.Observer
}

// Run runs the platform until ctx ends and stops it cleanly; see ErrStopApps. It
// fails in words when another daemon has the data directory, an address is taken, or
// a part is missing.
func Run(ctx context.Context, c Config, o Options) error {
	return run(ctx, c, o, c.addresses(), (*platform).build)
}

// Ground runs only what services stand on, NATS and PostgreSQL, with its streams and
// buckets made: for those who run the services as processes of their own.
func Ground(ctx context.Context, c Config, o Options) error {
	return run(ctx, c, o, []address{{"--nats", c.NATS}}, (*platform).buildGround)
}

func run(ctx context.Context, c Config, o Options, addresses []address, build func(*platform, context.Context) error) error {
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	c.DataDir = dir
	if err := os.MkdirAll(dir, dataDirMode); err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	held, err := lock.Acquire(dir)
	if err != nil {
		return err
	}
	defer held.Release() // the process's end does it too
	if err := checkFree(ctx, c.addressesToCheck(addresses)); err != nil {
		return err
	}
	p := &platform{config: c, options: o, log: o.Observer.Log, group: service.NewGroup(o.Observer.Log)}
	defer p.close()
	if err := build(p, ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	p.log.Info("slipwayd starts", "version", o.Version, "api", c.apiURL(), "data_dir", dir)
	return p.group.Run(ctx)
}

// addressesToCheck leaves out those of an edge that still runs and will be gone on
// with, or replaced.
func (c Config) addressesToCheck(all []address) []address {
	var check []address
	running := edge.Running(c.edgeDir())
	for _, a := range all {
		if running && (a.flag == "--edge-http" || a.flag == "--edge-https") {
			continue
		}
		check = append(check, a)
	}
	return check
}

// Where things are in the data directory.
func (c Config) natsDir() string     { return filepath.Join(c.DataDir, "nats") }
func (c Config) natsKeys() string    { return filepath.Join(c.natsDir(), "keys") }
func (c Config) postgresDir() string { return filepath.Join(c.DataDir, "postgres") }
func (c Config) registryDir() string { return filepath.Join(c.DataDir, "registry") }
func (c Config) edgeDir() string     { return filepath.Join(c.DataDir, "edge") }
func (c Config) nodeDir() string     { return filepath.Join(c.DataDir, "nodes", c.Node.ID) }
func (c Config) credentialsFile() string {
	return filepath.Join(c.DataDir, "credentials.json")
}
func (c Config) masterKey() string { return filepath.Join(c.DataDir, "master.key") }

// platform is one run of the daemon.
type platform struct {
	config  Config
	options Options
	log     *slog.Logger
	group   *service.Group
	closers []func()
}

func (p *platform) onClose(f func()) { p.closers = append(p.closers, f) }

func (p *platform) close() {
	for i := len(p.closers) - 1; i >= 0; i-- {
		p.closers[i]()
	}
}

// services is what GET /api/v1/health tells of every part.
func (p *platform) services() map[string]bool {
	ready := map[string]bool{}
	for name, check := range p.group.Checks() {
		ready[name] = check() == nil
	}
	return ready
}
