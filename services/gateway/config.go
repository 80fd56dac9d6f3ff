package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/idempotency"
	"github.com/slipway-paas/slipway/services/gateway/ratelimit"
	"github.com/slipway-paas/slipway/services/gateway/requests"
)

// Config is what an operator of the platform can set. Zero values mean defaults.
type Config struct {
	// Listen is host:port of the public API, 127.0.0.1:8080 when empty.
	Listen string
	// Heartbeat is how often an idle event stream shows that it lives: 15 s.
	Heartbeat time.Duration
	// MaxStreams and MaxStreamsPerOperator bound open event streams: 1024 and 32.
	MaxStreams, MaxStreamsPerOperator int
	// RateLimits are off where they are zero.
	RateLimits RateLimits
	// PublicURL is where the public reaches the API, like https://api.example.com: OAuth
	// clients know the platform by it. Empty for http:// and the address listened on.
	PublicURL string
}

func (c Config) withDefaults() (Config, error) {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8080"
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 15 * time.Second
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = 1024
	}
	if c.MaxStreamsPerOperator == 0 {
		c.MaxStreamsPerOperator = 32
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return c, fmt.Errorf("listen: %q is no host:port: %w", c.Listen, err)
	}
	if c.Heartbeat < 0 || c.MaxStreams < 0 || c.MaxStreamsPerOperator < 0 {
		return c, errors.New("heartbeat and limits of streams must not be negative")
	}
	if err := ValidatePublicURL(c.PublicURL); err != nil {
		return c, fmt.Errorf("public-url: %w", err)
	}
	return c, c.RateLimits.Validate()
}

// ValidatePublicURL is nil for what Config.PublicURL may be.
func ValidatePublicURL(address string) error {
	if address == "" {
		return nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || address != u.Scheme+"://"+u.Host {
		return fmt.Errorf("%q must be https://host or http://host:port, with no path and no slash at its end", address)
	}
	return nil
}

// ProbeFeed tells of every probe of an instance until ctx ends; probes.JetStream is one.
type ProbeFeed interface {
	Follow(ctx context.Context, handle func(*healthv1.ProbeResult)) error
}

// RequestReader knows what edges said of requests; requests.JetStream is one.
type RequestReader interface {
	// Last returns the last so many entries of an access log and the sequence they go
	// up to.
	Last(ctx context.Context, org, deployment string, most int) ([]requests.Entry, uint64, error)
	// Follow hands over the entries after that sequence until ctx ends.
	Follow(ctx context.Context, org, deployment string, after uint64, handle func([]requests.Entry) error) error
	// Sum adds up the requests of the last so long.
	Sum(ctx context.Context, org, deployment string, window time.Duration) (requests.Sums, error)
}

// Deps are what the gateway stands on.
type Deps struct {
	Scheduler schedulerv1.SchedulerServiceClient
	// Admin answers those who run the platform.
	Admin adminv1.AdminServiceClient
	Tiers billingv1.TierServiceClient
	// Accounts, Orgs and APIKeys answer people about what is theirs.
	Accounts identityv1.AccountServiceClient
	Orgs     identityv1.OrgServiceClient
	APIKeys  identityv1.ApiKeyServiceClient
	// EventCredentials answers organizations about those of their NATS clients.
	EventCredentials identityv1.EventCredentialServiceClient
	// Webhooks tells endpoints outside of events.
	Webhooks webhooksv1.WebhookServiceClient
	// Domains keeps those that apps' owners bring.
	Domains domainv1.DomainServiceClient
	// DNS keeps zones and tunnels.
	DNS dnsv1.DNSAdminServiceClient
	// OAuth keeps apps and grants.
	OAuth identityv1.OAuthServiceClient
	// Identity answers for credentials; Authenticator takes its place when set.
	Identity      identityv1.IdentityServiceClient
	Authenticator authn.Authenticator
	Store         eventstore.Store
	// Rates is what the gateways share of their rate limits; nil counts alone.
	Rates ratelimit.Store
	// Answers keeps those that may be asked for again; nil ignores Idempotency-Key.
	Answers *idempotency.Keeper
	// Probes may be nil: last_health_check then comes from events alone.
	Probes ProbeFeed
	// Requests may be nil: there are no access logs and figures of requests then.
	Requests RequestReader
	// Services says which parts of the platform are ready, for GET /api/v1/health.
	// It must answer at once.
	Services func() map[string]bool
	// Edges is how many edges are heard, and how many fell silent without having said
	// that they close; nil when nobody listens. *edges.Watch has it.
	Edges   func() (living, silent int)
	Version string
	// Metrics gets the gateway's figures; nil for none.
	Metrics prometheus.Registerer
	// Exposition answers GET /metrics, for callers on this machine only; nil for none.
	Exposition http.Handler
	// Tracing says whether spans are exported: without it polls make none.
	Tracing bool
	// Listener is used instead of Config.Listen when set.
	Listener net.Listener
	Log      *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

func (d Deps) withDefaults() (Deps, error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Authenticator == nil && d.Identity != nil {
		d.Authenticator = authn.NewTokens(d.Identity, d.Now)
	}
	if d.Scheduler == nil || d.Admin == nil || d.Tiers == nil || d.Authenticator == nil || d.Accounts == nil || d.Orgs == nil || d.APIKeys == nil || d.EventCredentials == nil || d.OAuth == nil || d.Webhooks == nil || d.Domains == nil || d.DNS == nil || d.Store == nil || d.Services == nil || d.Log == nil {
		return d, errors.New("the gateway needs clients of scheduler, tiers, identity, webhooks, domains and dns, an event store, the services' readiness and a logger")
	}
	return d, nil
}
