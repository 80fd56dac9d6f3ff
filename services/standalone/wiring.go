package standalone

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/billing"
	"github.com/slipway-paas/slipway/services/dns"
	"github.com/slipway-paas/slipway/services/domains"
	"github.com/slipway-paas/slipway/services/gateway"
	gatewayedges "github.com/slipway-paas/slipway/services/gateway/edges"
	"github.com/slipway-paas/slipway/services/gateway/idempotency"
	"github.com/slipway-paas/slipway/services/gateway/probes"
	"github.com/slipway-paas/slipway/services/gateway/ratelimit"
	"github.com/slipway-paas/slipway/services/gateway/requests"
	"github.com/slipway-paas/slipway/services/health"
	"github.com/slipway-paas/slipway/services/identity"
	proxyconfig "github.com/slipway-paas/slipway/services/proxy-config"
	"github.com/slipway-paas/slipway/services/registry"
	"github.com/slipway-paas/slipway/services/scheduler"
	"github.com/slipway-paas/slipway/services/standalone/internal/edge"
	"github.com/slipway-paas/slipway/services/standalone/internal/postgres"
	"github.com/slipway-paas/slipway/services/subscriptions"
	"github.com/slipway-paas/slipway/services/webhooks"
)

// ground is what services stand on.
type ground struct {
	nats  *nats.Conn
	js    jetstream.JetStream
	store eventstore.Store
	pool  *pgxpool.Pool
	calls *rpc.Memory
	// sealer is there once identity is built.
	sealer *seal.Sealer
	// natsURL and edgeKey are how the edge reaches NATS, asNode how this machine's node does.
	natsURL, edgeKey string
	asNode           natsconn.Config
	// leaf and leafKey are how the server for NATS clients outside joins NATS.
	leaf, leafKey string
	// writable says why the log cannot be written; nil when others keep it.
	writable func() error
}

// build makes every part, top to bottom; they stop in reverse order.
func (p *platform) build(ctx context.Context) error {
	return p.buildAll(ctx,
		p.buildNATS, p.buildDatabase, p.buildCalls, p.buildRegistry,
		p.buildBilling, p.buildIdentity, p.buildScheduler, p.buildProxyConfig, p.buildHealth, p.buildNodeAgent,
		p.buildEdge, p.buildWebhooks, p.buildSubscriptions, p.buildDomains, p.buildDNS, p.buildGateway, p.buildOps,
	)
}

func (p *platform) buildGround(ctx context.Context) error {
	return p.buildAll(ctx, p.buildNATS, p.buildDatabase, p.buildOps)
}

func (p *platform) buildAll(ctx context.Context, parts ...func(context.Context, *ground) error) error {
	g := &ground{}
	for _, part := range parts {
		if err := part(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

func (p *platform) buildNATS(ctx context.Context, g *ground) error {
	connect := natsconn.Config{Role: natsconn.RolePlatform, Name: "slipwayd", Log: p.log}
	if p.config.externalNATS() {
		connect.URL, connect.SeedFile = p.config.NATS, p.config.NATSKey
		g.natsURL, g.edgeKey = p.config.NATS, p.config.NATSKey
		g.leaf, g.leafKey = p.config.Subscriptions.Leaf, p.config.Subscriptions.LeafKey
		g.asNode = natsconn.Config{URL: p.config.NATS, SeedFile: p.config.NATSKey, Role: natsconn.RoleNode, Node: p.config.Node.ID, Log: p.log}
	} else {
		keys, err := natsconn.EnsureKeys(p.config.dir().NATSKeys(), p.config.Node.ID)
		if err != nil {
			return err
		}
		server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{
			Listen: p.config.NATS, StoreDir: p.config.dir().NATSStore(), Keys: keys, Leaf: p.config.NATSLeaf, Log: p.log,
		})
		if err != nil {
			return fmt.Errorf("--nats: %w", err)
		}
		p.onClose(server.Stop)
		p.group.Add("event log", server)
		g.writable = server.Writable
		g.leaf, g.leafKey = server.LeafURL(), keys.SeedFile(natsconn.RoleSubscriptions)
		connect.Server, connect.SeedFile = server, keys.SeedFile(natsconn.RolePlatform)
		g.natsURL, g.edgeKey = "nats://"+local(p.config.NATS), keys.SeedFile(natsconn.RoleEdge)
		g.asNode = natsconn.Config{Server: server, SeedFile: keys.NodeSeedFile(p.config.Node.ID), Role: natsconn.RoleNode, Node: p.config.Node.ID, Log: p.log}
	}
	var err error
	if g.nats, err = natsconn.Connect(connect); err != nil {
		return fmt.Errorf("--nats: %w", err)
	}
	p.onClose(g.nats.Close)
	if g.js, err = jetstream.New(g.nats); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	if err := natsconn.Provision(ctx, g.js, p.config.NATSReplicas); err != nil {
		return err
	}
	g.store = eventlog.New(g.js, p.log,
		eventlog.WithTracer(p.options.Observer.Tracer("eventstore")), eventlog.WithMeter(p.options.Observer.Meter()),
		eventlog.WithWritable(g.writable))
	p.group.Add("nats", connection{g.nats})
	return nil
}

func (p *platform) buildDatabase(ctx context.Context, g *ground) error {
	url := p.config.DatabaseURL
	if url == "" {
		cluster, err := postgres.Start(ctx, postgres.Config{Dir: p.config.dir().Postgres(), Log: p.log})
		if err != nil {
			return err
		}
		p.onClose(func() {
			if err := cluster.Stop(); err != nil {
				p.log.Error("the database did not stop cleanly", "error", err)
			}
		})
		p.log.Info("the private database", "url", cluster.URL())
		p.group.Add("postgres", cluster)
		url = cluster.URL()
	}
	settings, err := pgxpool.ParseConfig(url)
	if err != nil {
		// The error may hold the password.
		return errors.New("--database-url: it is not understood; write postgres://user:password@host:port/database")
	}
	settings.MaxConns = 12
	settings.MaxConnIdleTime = time.Minute
	if g.pool, err = pgxpool.NewWithConfig(ctx, settings); err != nil {
		return fmt.Errorf("--database-url: %w", err)
	}
	p.onClose(g.pool.Close)
	p.group.Add("database connections", service.RunFunc(func(ctx context.Context) error {
		<-ctx.Done()
		g.pool.Close() // before the private PostgreSQL stops
		return nil
	}))
	bounded, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := g.pool.Ping(bounded); err != nil {
		return fmt.Errorf("--database-url: connect: %w", err)
	}
	return nil
}

func (p *platform) buildCalls(_ context.Context, g *ground) error {
	calls, err := rpc.NewMemory(p.log)
	if err != nil {
		return err
	}
	p.onClose(func() { _ = calls.Close() }) // closing twice is its only error
	p.group.Add("calls", calls)
	g.calls = calls
	return nil
}

func (p *platform) buildRegistry(context.Context, *ground) error {
	s, err := registry.New(registry.Config{Listen: p.config.Registry, StoreDir: p.config.dir().Registry()}, registry.Deps{Log: p.log})
	if err != nil {
		return fmt.Errorf("--registry: %w", err)
	}
	p.group.Add("registry", s)
	return nil
}

func (p *platform) buildBilling(_ context.Context, g *ground) error {
	s, err := billing.New(billing.Config{Tiers: p.config.Tiers})
	if err != nil {
		return err
	}
	s.Register(g.calls)
	p.group.Add("billing", s)
	return nil
}

// unlock opens the data keys with the master key.
func (p *platform) unlock(ctx context.Context, g *ground) error {
	keys, err := g.js.KeyValue(ctx, subjects.BucketKeys)
	if err != nil {
		return fmt.Errorf("open the bucket of data keys: %w", err)
	}
	g.sealer, err = seal.Unlock(ctx, seal.From{File: p.config.dir().MasterKey(), Keys: p.config.MasterKeys}, keys)
	return err
}

func (p *platform) buildIdentity(ctx context.Context, g *ground) error {
	if err := p.unlock(ctx, g); err != nil {
		return err
	}
	s, err := identity.New(p.config.identity(), identity.Deps{Store: g.store, Seal: g.sealer, Log: p.log.With("part", "identity")})
	if err != nil {
		return err
	}
	s.Register(g.calls)
	p.group.Add("identity", s)
	keep := identity.KeeperConfig{File: p.config.dir().Credentials(), APIURL: p.config.apiURL(), AppURL: p.config.appURL()}
	// At once, not beside the other parts: who waits for the API reads the file.
	return identity.NewKeeper(s, keep, p.log.With("part", "identity")).Keep(ctx)
}

func (p *platform) buildScheduler(_ context.Context, g *ground) error {
	s, err := scheduler.New(p.config.scheduler(local(p.config.Registry)), scheduler.Deps{
		Store: g.store, NATS: g.nats, JetStream: g.js, Pool: g.pool, Seal: g.sealer,
		Tiers: billingv1.NewTierServiceClient(g.calls.Conn()),
		Now:   time.Now, Log: p.log.With("part", "scheduler"),
		Metrics: p.options.Observer.Registry, Meter: p.options.Observer.Meter(), Tracer: p.options.Observer.Tracer("scheduler"),
	})
	if err != nil {
		return err
	}
	s.Register(g.calls)
	p.group.Add("scheduler", s)
	return nil
}

func (p *platform) buildProxyConfig(_ context.Context, g *ground) error {
	s, err := proxyconfig.New(proxyconfig.DefaultConfig(), proxyconfig.Deps{
		Store: g.store, NATS: g.nats, JetStream: g.js, Registry: p.options.Observer.Registry,
		Meter: p.options.Observer.Meter(), Tracer: p.options.Observer.Tracer("proxy-config"),
		Now: time.Now, Log: p.log.With("part", "proxy-config"),
	})
	if err != nil {
		return err
	}
	p.group.Add("proxy-config", s)
	return nil
}

func (p *platform) buildHealth(_ context.Context, g *ground) error {
	s, err := health.New(health.Config{}, health.Deps{
		Store: g.store, NATS: g.nats, JetStream: g.js, Log: p.log.With("part", "health"),
		Metrics: p.options.Observer.Registry, Meter: p.options.Observer.Meter(), Tracer: p.options.Observer.Tracer("health"),
	})
	if err != nil {
		return err
	}
	p.group.Add("health", s)
	return nil
}

func (p *platform) buildEdge(_ context.Context, g *ground) error {
	args := []string{
		"--nats", g.natsURL, "--http", p.config.EdgeHTTP, "--https", p.config.EdgeHTTPS, "--data-dir", p.config.dir().Edge(), "--base-domain", p.config.BaseDomain,
	}
	args = append(args, p.config.Settings.Args()...)
	args = append(args, p.config.Edge.Args()...)
	if len(p.config.TrustedProxies) > 0 {
		args = append(args, "--trusted-proxies", strings.Join(p.config.TrustedProxies, ","))
	}
	if len(p.config.ProxyProtocol) > 0 {
		args = append(args, "--proxy-protocol-from", strings.Join(p.config.ProxyProtocol, ","))
	}
	if p.config.CloudflareFile != "" {
		args = append(args, "--cloudflare-ranges", p.config.CloudflareFile)
	}
	if g.edgeKey != "" {
		args = append(args, "--nats-creds", g.edgeKey)
	}
	e, err := edge.New(edge.Config{Program: p.options.EdgeProgram, Args: args, Version: p.options.Version, Dir: p.config.dir().Edge(), Log: p.log})
	if err != nil {
		return err
	}
	p.group.Add("edge", e)
	return nil
}

func (p *platform) buildWebhooks(_ context.Context, g *ground) error {
	s, err := webhooks.New(p.config.Webhooks, webhooks.Deps{
		Store: g.store, JetStream: g.js, Seal: g.sealer, Version: p.options.Version, Log: p.log.With("part", "webhooks"),
		Metrics: p.options.Observer.Registry,
	})
	if err != nil {
		return err
	}
	s.Register(g.calls)
	p.group.Add("webhooks", s)
	return nil
}

func (p *platform) buildDNS(_ context.Context, g *ground) error {
	s, err := dns.New(p.config.dns(), dns.Deps{
		Store: g.store, NATS: g.nats, JetStream: g.js, Seal: g.sealer, Log: p.log.With("part", "dns"), Metrics: p.options.Observer.Registry,
	})
	if err != nil {
		return err
	}
	s.Register(g.calls)
	p.group.Add("dns", s)
	return nil
}

func (p *platform) buildDomains(_ context.Context, g *ground) error {
	s, err := domains.New(p.config.domains(), domains.Deps{
		Store: g.store, NATS: g.nats, Metrics: p.options.Observer.Registry, Log: p.log.With("part", "domains"),
	})
	if err != nil {
		return err
	}
	s.Register(g.calls)
	p.group.Add("domains", s)
	return nil
}

func (p *platform) buildSubscriptions(_ context.Context, g *ground) error {
	if !p.config.subscribes() {
		p.log.Info("NATS clients outside cannot connect: --subscriptions-listen is empty, or --subscriptions-leaf does not say where to join the NATS servers")
		return nil
	}
	c := p.config.Subscriptions
	c.Leaf, c.LeafKey = g.leaf, g.leafKey
	s, err := subscriptions.New(c, subscriptions.Deps{
		Store: g.store, JetStream: g.js, Metrics: p.options.Observer.Registry, Log: p.log.With("part", "subscriptions"),
	})
	if err != nil {
		return err
	}
	p.onClose(s.Close)
	p.group.Add("subscriptions", s)
	return nil
}

func (p *platform) buildGateway(ctx context.Context, g *ground) error {
	rates, err := g.js.KeyValue(ctx, subjects.BucketRates)
	if err != nil {
		return fmt.Errorf("open the bucket of rate limits: %w", err)
	}
	answers, err := idempotency.Open(ctx, g.js, g.sealer, p.log.With("part", "gateway"))
	if err != nil {
		return err
	}
	heard := gatewayedges.New(g.nats, time.Now)
	s, err := gateway.New(gateway.Config{Listen: p.config.Listen, PublicURL: p.config.PublicURL, RateLimits: p.config.RateLimits}, gateway.Deps{
		Scheduler:        schedulerv1.NewSchedulerServiceClient(g.calls.Conn()),
		Admin:            adminv1.NewAdminServiceClient(g.calls.Conn()),
		Tiers:            billingv1.NewTierServiceClient(g.calls.Conn()),
		Identity:         identityv1.NewIdentityServiceClient(g.calls.Conn()),
		Accounts:         identityv1.NewAccountServiceClient(g.calls.Conn()),
		Orgs:             identityv1.NewOrgServiceClient(g.calls.Conn()),
		APIKeys:          identityv1.NewApiKeyServiceClient(g.calls.Conn()),
		EventCredentials: identityv1.NewEventCredentialServiceClient(g.calls.Conn()),
		Webhooks:         webhooksv1.NewWebhookServiceClient(g.calls.Conn()),
		OAuth:            identityv1.NewOAuthServiceClient(g.calls.Conn()),
		Store:            g.store,
		Rates:            ratelimit.NewKV(rates),
		Answers:          answers,
		Probes:           probes.NewJetStream(g.js, p.log),
		Services:         p.services,
		Version:          p.options.Version,
		Metrics:          p.options.Observer.Registry, Exposition: p.options.Observer.Metrics(),
		Domains:  domainv1.NewDomainServiceClient(g.calls.Conn()),
		DNS:      dnsv1.NewDNSAdminServiceClient(g.calls.Conn()),
		Requests: requests.NewJetStream(g.js, time.Now),
		Edges:    heard.Edges,
		Tracing:  p.options.Observer.Tracing,
		Log:      p.log.With("part", "gateway"),
	})
	if err != nil {
		return err
	}
	p.group.Add("edges", heard)
	p.group.Add("gateway", s)
	return nil
}

func (p *platform) buildOps(ctx context.Context, _ *ground) error {
	ops, err := service.ListenOps(ctx, p.config.OpsListen, p.options.Observer.Metrics(), p.group.Checks())
	if err != nil {
		return err
	}
	p.log.Info("metrics and probes", "address", ops.Address())
	p.group.Add("ops", ops)
	return nil
}

// connection is the daemon's NATS connection as a part that can be asked.
type connection struct{ nats *nats.Conn }

func (c connection) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (c connection) Ready() error {
	if !c.nats.IsConnected() {
		return errors.New("NATS is not connected")
	}
	return nil
}
