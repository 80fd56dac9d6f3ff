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

	"github.com/slipway-paas/slipway/libs/config"
	"github.com/slipway-paas/slipway/libs/datadir"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/services/standalone/internal/edge"
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
	held, err := datadir.Acquire(dir)
	if err != nil {
		return err
	}
	defer func() { _ = held.Release() }() // the process's end does it too
	if err := checkFree(ctx, c.addressesToCheck(addresses)); err != nil {
		return err
	}
	if err := keepSettings(c); err != nil {
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

// keepSettings writes what the daemon runs with into its data directory: a backup
// takes it along, and finds NATS by it.
func keepSettings(c Config) error {
	text, err := config.Effective(c)
	if err != nil {
		return err
	}
	path := c.dir().Settings()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("keep the settings: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("keep the settings: %w", err)
	}
	return nil
}

// addressesToCheck leaves out those of an edge that still runs and will be gone on
// with, or replaced.
func (c Config) addressesToCheck(all []address) []address {
	var check []address
	running := edge.Running(c.dir().Edge())
	for _, a := range all {
		if running && (a.flag == "--edge-http" || a.flag == "--edge-https") {
			continue
		}
		check = append(check, a)
	}
	return check
}

// dir is where everything is kept.
func (c Config) dir() datadir.Dir { return datadir.Dir(c.DataDir) }

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
