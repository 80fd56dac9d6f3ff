package standalone

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-paas/slipway/libs/datadir"
	"github.com/slipway-paas/slipway/libs/edgetls"
	"github.com/slipway-paas/slipway/libs/edgetraffic"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/billing/tier"
	"github.com/slipway-paas/slipway/services/dns"
	"github.com/slipway-paas/slipway/services/domains"
	"github.com/slipway-paas/slipway/services/gateway"
	"github.com/slipway-paas/slipway/services/identity"
	"github.com/slipway-paas/slipway/services/identity/mail"
	nodeagent "github.com/slipway-paas/slipway/services/node-agent"
	"github.com/slipway-paas/slipway/services/scheduler"
	"github.com/slipway-paas/slipway/services/subscriptions"
	"github.com/slipway-paas/slipway/services/webhooks"
)

// DomainSettings are how custom domains are looked up. A name of its own keeps it apart
// from the edge's settings.
type DomainSettings = domains.Settings

// Config is what slipwayd is told by flags, SLIPWAY_… variables or YAML.
type Config struct {
	DataDir   string `koanf:"data-dir" usage:"directory of all data"`
	Listen    string `koanf:"listen" default:"127.0.0.1:8080" usage:"host:port of the public API"`
	PublicURL string `koanf:"public-url" usage:"where the public reaches the API, like https://api.example.com; http:// and --listen when empty"`
	EdgeHTTP  string `koanf:"edge-http" default:":8000" usage:"host:port where apps are served over HTTP"`
	EdgeHTTPS string `koanf:"edge-https" default:":8443" usage:"host:port where apps are served over HTTPS"`
	// TrustedProxies stand before the edge.
	TrustedProxies []string `koanf:"edge-trusted-proxies" usage:"address ranges (CIDR) of proxies in front of the edge, whose X-Forwarded-For is believed; cloudflare stands for Cloudflare's"`
	// ProxyProtocol are load balancers before the edge.
	ProxyProtocol []string `koanf:"edge-proxy-protocol-from" usage:"address ranges (CIDR) of load balancers that begin connections to the edge with a PROXY protocol header"`
	// CloudflareFile is for a list newer than the one that is built in.
	CloudflareFile string `koanf:"edge-cloudflare-ranges" usage:"file with Cloudflare's address ranges, one a line, instead of the list that is built in"`
	// Edge is how the edge treats requests and instances.
	Edge edgetraffic.Rules `koanf:"edge"`
	// Settings are how the edge serves HTTPS.
	edgetls.Settings
	Registry string `koanf:"registry" default:"127.0.0.1:5055" usage:"host:port of the built-in OCI registry"`
	NATS     string `koanf:"nats" default:"127.0.0.1:4222" usage:"host:port of the built-in NATS server, or nats://host:port of your own, several with commas"`
	NATSLeaf string `koanf:"nats-leaf" default:"127.0.0.1:0" usage:"host:port of this machine where slipway-subscriptions joins the built-in NATS server; port 0 takes a free one"`
	NATSKey  string `koanf:"nats-key" usage:"nkey seed file, for a NATS server of your own"`
	// NATSReplicas is 3 on a cluster.
	NATSReplicas int    `koanf:"nats-replicas" default:"1" usage:"servers that keep each stream: 1, or 3 in a cluster of your own"`
	BaseDomain   string `koanf:"base-domain" default:"apps.localhost" usage:"domain that apps live under"`

	DatabaseURL string `koanf:"database-url" secret:"true" usage:"PostgreSQL to use, postgres://…; a private one is run when empty"`
	// MasterKeys are in the environment where the data directory shall not hold them.
	MasterKeys string `koanf:"master-keys" secret:"true" usage:"the keys that wrap data keys instead of the data directory's master.key, for the environment: base64 of 32 bytes each, newest first, with commas"`
	OpsListen  string `koanf:"ops-listen" default:"127.0.0.1:0" usage:"host:port for /metrics, /healthz and /readyz; port 0 takes a free one, see the log"`
	Node       Node   `koanf:"node"`

	// AllowedRegistries are the image registries beside the built-in one.
	AllowedRegistries  []string          `koanf:"allowed-registries" usage:"prefixes that image references may start with, beside the built-in registry's"`
	ReservedSubdomains []string          `koanf:"reserved-subdomains" usage:"subdomains that nobody may take"`
	NodeLossAfter      time.Duration     `koanf:"node-loss-after" usage:"silence after which a node's instances are placed on others"`
	MaxInstances       int               `koanf:"max-instances" usage:"how many instances an app may have at most"`
	Rollout            scheduler.Rollout `koanf:"rollout"`
	SessionTTL         time.Duration     `koanf:"session-ttl" usage:"how long a login lasts"`
	SMTP               mail.Config       `koanf:"smtp"`
	// RateLimits are how many requests a minute the API answers.
	RateLimits gateway.RateLimits `koanf:"rate-limits"`
	Webhooks   webhooks.Config    `koanf:"webhooks"`
	// Subscriptions are for NATS clients outside, SubscriptionsURL is where they connect.
	Subscriptions    subscriptions.Config `koanf:"subscriptions"`
	SubscriptionsURL string               `koanf:"subscriptions-url" usage:"where NATS clients outside connect, e.g. tls://events.example.com:4223; --subscriptions-listen when empty"`
	DomainSettings
	Cloudflare dns.Cloudflare `koanf:"cloudflare"`
	DNS        dns.Config     `koanf:"dns"`
	// Tiers replaces the default tiers; YAML only.
	Tiers []tier.Tier `koanf:"tiers"`
}

// Node is the share of this machine that is for apps.
type Node struct {
	ID            string `koanf:"id" default:"node-1" usage:"name of this machine's node"`
	MemoryMB      int    `koanf:"memory-mb" usage:"memory for apps in MB; all but 512 when 0"`
	CPUMillicores int    `koanf:"cpu-millicores" usage:"CPU for apps in thousandths of a core; all when 0"`
	NamespacePool int    `koanf:"namespace-pool" default:"8" usage:"network namespaces kept ready for new containers; -1 uses Podman's own bridge"`
	// PruneImagesAfter is as in node.Config.
	PruneImagesAfter time.Duration `koanf:"prune-images-after" default:"30m" usage:"how long an image stays that nothing needs any more, 10s or longer"`
}

// DefaultConfig is what holds where nothing else is said.
func DefaultConfig() Config {
	s, i := scheduler.DefaultConfig(), identity.DefaultConfig()
	return Config{
		DataDir:           string(datadir.Default()),
		AllowedRegistries: s.AllowedRegistries, ReservedSubdomains: s.ReservedSubdomains,
		NodeLossAfter: s.NodeLossAfter, MaxInstances: s.MaxInstances, Rollout: s.Rollout, SessionTTL: i.SessionTTL, SMTP: i.SMTP,
		Subscriptions:  subscriptions.DefaultConfig(),
		DomainSettings: domains.DefaultSettings(),
	}
}

// Validate says everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, errors.New("--data-dir: name a directory"))
	}
	errs = append(errs, c.validateAddresses()...)
	if err := gateway.ValidatePublicURL(c.PublicURL); err != nil {
		errs = append(errs, fmt.Errorf("--public-url: %w", err))
	}
	if c.DatabaseURL != "" && !strings.HasPrefix(c.DatabaseURL, "postgres://") && !strings.HasPrefix(c.DatabaseURL, "postgresql://") {
		errs = append(errs, errors.New("--database-url: it must start with postgres://"))
	}
	if !validDomain(c.BaseDomain) {
		errs = append(errs, fmt.Errorf("--base-domain: %q is no domain; use lowercase letters, digits and hyphens between dots", c.BaseDomain))
	}
	for _, r := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(r); err != nil && r != "cloudflare" {
			errs = append(errs, fmt.Errorf("--edge-trusted-proxies: %q is no address range, e.g. 10.0.0.0/8, and not cloudflare", r))
		}
	}
	for _, r := range c.ProxyProtocol {
		if _, err := netip.ParsePrefix(r); err != nil {
			errs = append(errs, fmt.Errorf("--edge-proxy-protocol-from: %q is no address range, e.g. 10.0.0.0/8", r))
		}
	}
	if err := c.Edge.Validate("edge-"); err != nil {
		errs = append(errs, err)
	}
	if err := c.Settings.Validate(c.BaseDomain); err != nil {
		errs = append(errs, err)
	}
	if c.NATSKey != "" && !c.externalNATS() {
		errs = append(errs, errors.New("--nats-key: it is for a NATS server of your own; give that one with --nats nats://host:port"))
	}
	switch {
	case c.NATSReplicas != 1 && c.NATSReplicas != 3 && c.NATSReplicas != 5:
		errs = append(errs, fmt.Errorf("--nats-replicas: %d must be 1, 3 or 5", c.NATSReplicas))
	case c.NATSReplicas > 1 && !c.externalNATS():
		errs = append(errs, errors.New("--nats-replicas: the built-in NATS server stands alone; give a cluster of your own with --nats nats://host:port,…"))
	}
	if c.Node.MemoryMB < 0 || c.Node.CPUMillicores < 0 {
		errs = append(errs, errors.New("--node-memory-mb, --node-cpu-millicores: must not be negative"))
	}
	if c.Node.PruneImagesAfter < nodeagent.MinPruneAfter {
		errs = append(errs, fmt.Errorf("--node-prune-images-after: %v is too short; use %v or longer, e.g. 30m", c.Node.PruneImagesAfter, nodeagent.MinPruneAfter))
	}
	if !subjects.ValidToken(c.Node.ID) {
		errs = append(errs, fmt.Errorf("--node-id: %q must be 1 to 128 letters, digits, hyphens or underscores", c.Node.ID))
	}
	if err := c.identity().Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.scheduler(c.Registry).Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.RateLimits.Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.Webhooks.Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.Subscriptions.Validate(); err != nil {
		errs = append(errs, err)
	}
	if !rpc.Loopback(c.NATSLeaf) {
		errs = append(errs, fmt.Errorf("--nats-leaf: %q must be on this machine, such as 127.0.0.1:7422: leaf nodes join without TLS", c.NATSLeaf))
	}
	if err := c.dns().Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.DomainSettings.Validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// addresses are what is listened on, by flag.
func (c Config) addresses() []address {
	all := []address{{"--listen", c.Listen}, {"--edge-http", c.EdgeHTTP}, {"--edge-https", c.EdgeHTTPS}, {"--registry", c.Registry}}
	if !c.externalNATS() {
		all = append(all, address{"--nats", c.NATS})
	}
	if c.subscribes() {
		all = append(all, address{"--subscriptions-listen", c.Subscriptions.Listen})
	}
	return all
}

func (c Config) validateAddresses() []error {
	var errs []error
	taken := map[string]string{}
	for _, a := range c.addresses() {
		host, port, err := net.SplitHostPort(a.hostPort)
		number, err2 := strconv.Atoi(port)
		switch {
		case err != nil, err2 != nil, number < 0, number > 65535:
			errs = append(errs, fmt.Errorf("%s: %q must be host:port or :port, with a port up to 65535", a.flag, a.hostPort))
			continue
		case number == 0:
			errs = append(errs, fmt.Errorf("%s: %q must name a port", a.flag, a.hostPort))
			continue
		case host != "" && host != "localhost" && net.ParseIP(host) == nil:
			errs = append(errs, fmt.Errorf("%s: %q must be an IP address, localhost or nothing before the colon", a.flag, a.hostPort))
			continue
		}
		if other, ok := taken[port]; ok {
			errs = append(errs, fmt.Errorf("%s and %s: both want port %s", other, a.flag, port))
		}
		taken[port] = a.flag
	}
	if c.externalNATS() {
		for one := range strings.SplitSeq(c.NATS, ",") {
			if u, err := url.Parse(strings.TrimSpace(one)); err != nil || u.Host == "" {
				errs = append(errs, fmt.Errorf("--nats: %q must be host:port, or nats://host:port", c.NATS))
			}
		}
	}
	return errs
}

// externalNATS reports whether --nats names a server of the operator's own.
func (c Config) externalNATS() bool { return strings.Contains(c.NATS, "://") }

// subscribes reports whether NATS clients outside may connect: NATS servers of the
// operator's own must let the server for them join.
func (c Config) subscribes() bool {
	return c.Subscriptions.On() && (!c.externalNATS() || c.Subscriptions.Leaf != "")
}

// subscriptionsURL is where NATS clients outside connect; empty when they cannot.
func (c Config) subscriptionsURL() string {
	switch {
	case !c.subscribes() || c.SubscriptionsURL != "":
		return c.SubscriptionsURL
	case c.Subscriptions.TLSCert != "":
		return "tls://" + local(c.Subscriptions.Listen)
	}
	return "nats://" + local(c.Subscriptions.Listen)
}

// scheduler is the scheduler's share; registry is the built-in one's host:port.
func (c Config) scheduler(registry string) scheduler.Config {
	return scheduler.Config{
		BaseDomain:         c.BaseDomain,
		AllowedRegistries:  append([]string{registry + "/"}, c.AllowedRegistries...),
		ReservedSubdomains: c.ReservedSubdomains,
		OwnHosts:           c.ownHosts(),
		NodeLossAfter:      c.NodeLossAfter,
		MaxInstances:       c.MaxInstances,
		Rollout:            c.Rollout,
	}
}

// domains is the share of domains.
func (c Config) domains() domains.Config {
	return domains.Config{BaseDomain: c.BaseDomain, OwnHosts: c.ownHosts(), Settings: c.DomainSettings}
}

// ownHosts are what the platform itself answers at, beside its base domain.
func (c Config) ownHosts() []string {
	var hosts []string
	if u, err := url.Parse(c.PublicURL); err == nil && u.Hostname() != "" {
		hosts = append(hosts, strings.ToLower(u.Hostname()))
	}
	if c.EdgeName != "" {
		hosts = append(hosts, c.EdgeName)
	}
	return hosts
}

// identity is identity's share.
func (c Config) identity() identity.Config {
	return identity.Config{SessionTTL: c.SessionTTL, Issuer: c.apiURL(), SMTP: c.SMTP, SubscriptionsURL: c.subscriptionsURL()}
}

// dns is dns' share.
func (c Config) dns() dns.Config { return c.DNS.With(c.BaseDomain, c.Cloudflare) }

// apiURL is where a client on this machine reaches the API.
func (c Config) apiURL() string { return "http://" + local(c.Listen) }

// appURL is the live address of apps on this machine, with {subdomain} in it.
func (c Config) appURL() string {
	scheme, usual, address := "http", "80", c.EdgeHTTP
	if c.TLS == edgetls.ACME {
		scheme, usual, address = "https", "443", c.EdgeHTTPS
	}
	_, port, err := net.SplitHostPort(address)
	if scheme == "https" && c.PublicHTTPSPort != 0 {
		port = strconv.Itoa(c.PublicHTTPSPort)
	}
	if err != nil || port == usual {
		return scheme + "://{subdomain}." + c.BaseDomain
	}
	return scheme + "://{subdomain}." + c.BaseDomain + ":" + port
}

// local is the address with a host that this machine can call.
func local(hostPort string) string {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return hostPort
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func validDomain(domain string) bool {
	if domain == "" || len(domain) > 190 {
		return false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" ||
			strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
	}
	return true
}
