// Package edge is Slipway's front: Caddy, with modules of ours that read a live
// route table instead of a configuration. A route changes without a reload, so no
// connection notices, and it costs the same with ten hosts and with fifty thousand.
package edge

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the modules that Caddy's own binary has

	"github.com/slipway-paas/slipway/services/proxy-config/edge/access"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/certs"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/feed"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/module"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/pages"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// lastWords is how long the end of access logs may take to be sent.
const lastWords = time.Second

// Run serves until ctx ends, then lets requests finish for at most cfg.Grace.
// Caddy is one in a process, and so is Run: call it once. It fails when the data
// directory cannot be used, a key cannot be read or an address is taken.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	id, err := cfg.edgeID()
	if err != nil {
		return err
	}
	log = log.With("edge", id)
	ballast := tuneGC(os.Getenv)
	defer runtime.KeepAlive(ballast)
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	// Caddy keeps a file of its own where this points, the home directory otherwise.
	if err := os.Setenv("XDG_DATA_HOME", cfg.DataDir); err != nil {
		return fmt.Errorf("keeping Caddy's files in the data directory: %w", err)
	}
	routes := &table.Table{}
	tunnels := newTunnels(routes, cfg.Drain)
	disk := table.Disk{Path: filepath.Join(cfg.DataDir, "routes.pb")}
	if err := disk.Load(routes); err != nil {
		log.Warn("starting without the last route table", "error", err)
	}
	writer, err := pages.NewWriter()
	if err != nil {
		return err
	}
	f, err := feed.New(feed.Config{EdgeID: id, URL: cfg.NATS, NKeySeedFile: cfg.NATSCreds, Disk: disk}, routes, log)
	if err != nil {
		return err
	}
	defer f.Close()
	keeper := certs.New(certs.Config{
		EdgeID: id, TLS: cfg.Settings, BaseDomain: cfg.BaseDomain, HTTP: cfg.HTTP, HTTPS: cfg.HTTPS, NATS: f.Conn(),
	}, routes, log)
	if cfg.servesHTTPS() {
		routes.Observe(keeper.Observe)
	}
	storage, err := cfg.sharedStorage(id, f.Conn(), log)
	if err != nil {
		return err
	}
	line, err := access.Connect(id, cfg.NATS, cfg.NATSCreds, log)
	if err != nil {
		return err
	}
	defer line.Close()
	recorder := access.New(id, line, log)
	_, ofCloudflare, err := cfg.proxies()
	if err != nil {
		return err
	}
	conns := module.NewConns()
	module.Register(module.Deps{
		Table: routes, Pages: writer, Conns: conns, Certs: keeper, Storage: storage, Access: recorder, Cloudflare: ofCloudflare,
		Connected: f.Connected, Away: f.Away, Pool: newPool(cfg, f, log), Tunnels: tunnels,
	})
	config, err := caddyConfig(cfg, tracingWanted(os.Getenv))
	if err != nil {
		return err
	}

	feedCtx, stopFeed := context.WithCancel(context.WithoutCancel(ctx))
	fed := make(chan error, 1)
	go func() { fed <- f.Run(feedCtx) }()
	defer func() { stopFeed(); <-fed }()
	recorded := make(chan struct{})
	go func() { defer close(recorded); recorder.Run(feedCtx, routed(routes)) }()
	// What was served last is told before the connection is closed.
	defer func() { stopFeed(); <-recorded; _ = line.FlushTimeout(lastWords) }()

	if !waitForTable(ctx, f, routes, log) {
		return nil
	}
	if err := checkStorage(ctx, storage, log); err != nil {
		return err
	}
	if err := caddy.Load(config, true); err != nil {
		return fmt.Errorf("starting Caddy: %w", err)
	}
	var sizing sync.WaitGroup
	sizing.Go(func() { sizeGC(feedCtx, os.Getenv, routes) })
	defer func() { stopFeed(); sizing.Wait() }()
	keeping := make(chan struct{})
	keepCtx, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(keeping)
		if cfg.servesHTTPS() {
			keeper.Run(keepCtx)
		}
	}()
	defer func() { stopKeeping(); <-keeping }()
	log.Info("edge serves", "http", cfg.HTTP, "https", cfg.HTTPS, "metrics", cfg.Metrics, "routes", routes.Len())
	<-ctx.Done()
	return shutdown(context.WithoutCancel(ctx), cfg, f, conns, log)
}

// shutdown goes in this order: nobody waits for this edge any more, no new
// connection is taken, and open ones end when their request does. The table stays
// live to the end.
func shutdown(ctx context.Context, cfg Config, f *feed.Feed, conns *module.Conns, log *slog.Logger) error {
	f.Closing()
	if err := caddy.Stop(); err != nil {
		return fmt.Errorf("stopping Caddy: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Grace)
	defer cancel()
	if err := conns.Wait(ctx); err != nil {
		log.Warn("cutting connections that did not end in time", "open", conns.Open(), "grace", cfg.Grace)
	}
	return nil
}

// tracingWanted follows OpenTelemetry's standard variables, and is off without them.
func tracingWanted(getenv func(string) string) bool {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return false
	}
	if exporter := getenv("OTEL_TRACES_EXPORTER"); exporter != "" {
		return exporter != "none"
	}
	return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// routed returns the deployments that have a route, made anew when the table changed.
func routed(t *table.Table) func() map[string]struct{} {
	var version uint64
	var ids map[string]struct{}
	return func() map[string]struct{} {
		if now := t.Version(); ids == nil || now != version {
			version, ids = now, map[string]struct{}{}
			for _, r := range t.Routes() {
				ids[r.GetDeploymentId()] = struct{}{}
			}
		}
		return ids
	}
}
