// Command slipway-gateway is the only public door.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway"
	"github.com/slipway-paas/slipway/services/gateway/edges"
	"github.com/slipway-paas/slipway/services/gateway/idempotency"
	"github.com/slipway-paas/slipway/services/gateway/peers"
	"github.com/slipway-paas/slipway/services/gateway/probes"
	"github.com/slipway-paas/slipway/services/gateway/ratelimit"
	"github.com/slipway-paas/slipway/services/gateway/requests"
)

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	Listen     string   `koanf:"listen" default:"127.0.0.1:8080" usage:"host:port of the public API"`
	PublicURL  string   `koanf:"public-url" usage:"where the public reaches the API, like https://api.example.com; http:// and --listen when empty"`
	Scheduler  string   `koanf:"scheduler" default:"127.0.0.1:9101" usage:"host:port of slipway-scheduler"`
	Identity   string   `koanf:"identity" default:"127.0.0.1:9102" usage:"host:port of slipway-identity"`
	Billing    string   `koanf:"billing" default:"127.0.0.1:9103" usage:"host:port of slipway-billing"`
	Webhooks   string   `koanf:"webhooks" default:"127.0.0.1:9104" usage:"host:port of slipway-webhooks"`
	Domains    string   `koanf:"domains" default:"127.0.0.1:9105" usage:"host:port of slipway-domains"`
	DNS        string   `koanf:"dns" default:"127.0.0.1:9106" usage:"host:port of slipway-dns"`
	Services   []string `koanf:"services" usage:"readiness pages of other services, name=URL, for /api/v1/health"`
	MasterKey  string   `koanf:"master-key" usage:"file with the key that wraps data keys; made when it is not there"`
	MasterKeys string   `koanf:"master-keys" secret:"true" usage:"the keys themselves instead of a file, for the environment: base64 of 32 bytes each, newest first, with commas"`

	RateLimits gateway.RateLimits `koanf:"rate-limits"`
}

func main() {
	var c settings
	service.Main("slipway-gateway", version, &c, func(ctx context.Context, p *service.Process) error {
		if c.MasterKey == "" && c.MasterKeys == "" {
			return errors.New("--master-key or SLIPWAY_MASTER_KEYS is needed")
		}
		nc, js, err := p.NATS(natsconn.RolePlatform)
		if err != nil {
			return err
		}
		events := jetstream.New(js, p.Log,
			jetstream.WithTracer(p.Observer.Tracer("eventstore")), jetstream.WithMeter(p.Observer.Meter()))
		checks, err := peers.Parse(c.Services)
		if err != nil {
			return err
		}
		scheduler, err := p.Dial("scheduler", c.Scheduler)
		if err != nil {
			return err
		}
		identity, err := p.Dial("identity", c.Identity)
		if err != nil {
			return err
		}
		billing, err := p.Dial("billing", c.Billing)
		if err != nil {
			return err
		}
		webhooks, err := p.Dial("webhooks", c.Webhooks)
		if err != nil {
			return err
		}
		domains, err := p.Dial("domains", c.Domains)
		if err != nil {
			return err
		}
		checks["scheduler"], checks["identity"], checks["billing"] = peers.GRPC(scheduler), peers.GRPC(identity), peers.GRPC(billing)
		dns, err := p.Dial("dns", c.DNS)
		if err != nil {
			return err
		}
		checks["webhooks"], checks["domains"], checks["dns"] = peers.GRPC(webhooks), peers.GRPC(domains), peers.GRPC(dns)
		watch := peers.New(checks)
		heard := edges.New(nc, time.Now)
		rates, err := js.KeyValue(ctx, subjects.BucketRates)
		if err != nil {
			return fmt.Errorf("open the bucket of rate limits: %w", err)
		}
		keys, err := js.KeyValue(ctx, subjects.BucketKeys)
		if err != nil {
			return fmt.Errorf("open the bucket of data keys: %w", err)
		}
		sealer, err := seal.Unlock(ctx, seal.From{File: c.MasterKey, Keys: c.MasterKeys}, keys)
		if err != nil {
			return err
		}
		answers, err := idempotency.Open(ctx, js, sealer, p.Log)
		if err != nil {
			return err
		}
		s, err := gateway.New(gateway.Config{Listen: c.Listen, PublicURL: c.PublicURL, RateLimits: c.RateLimits}, gateway.Deps{
			Scheduler:        schedulerv1.NewSchedulerServiceClient(scheduler),
			Admin:            adminv1.NewAdminServiceClient(scheduler),
			Tiers:            billingv1.NewTierServiceClient(billing),
			Identity:         identityv1.NewIdentityServiceClient(identity),
			Accounts:         identityv1.NewAccountServiceClient(identity),
			Orgs:             identityv1.NewOrgServiceClient(identity),
			APIKeys:          identityv1.NewApiKeyServiceClient(identity),
			EventCredentials: identityv1.NewEventCredentialServiceClient(identity),
			Rates:            ratelimit.NewKV(rates),
			Answers:          answers,
			Webhooks:         webhooksv1.NewWebhookServiceClient(webhooks),
			OAuth:            identityv1.NewOAuthServiceClient(identity),
			Domains:          domainv1.NewDomainServiceClient(domains),
			DNS:              dnsv1.NewDNSAdminServiceClient(dns),
			Store:            events, Probes: probes.NewJetStream(js, p.Log), Requests: requests.NewJetStream(js, time.Now), Services: watch.Services, Edges: heard.Edges,
			Version: p.Version, Metrics: p.Observer.Registry, Exposition: p.Observer.Metrics(), Tracing: p.Observer.Tracing, Log: p.Log,
		})
		if err != nil {
			return err
		}
		p.Add("peers", watch)
		p.Add("edges", heard)
		p.Add("gateway", s)
		return nil
	})
}
