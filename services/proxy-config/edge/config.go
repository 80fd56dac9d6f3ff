package edge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/slipway-paas/slipway/libs/edgetls"
	"github.com/slipway-paas/slipway/libs/edgetraffic"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/cloudflare"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// Config is what slipway-edge is told: flags, SLIPWAY_… variables or YAML.
type Config struct {
	NATS           string        `koanf:"nats" default:"nats://127.0.0.1:4222" usage:"NATS server the routes come from, nats://host:port"`
	NATSCreds      string        `koanf:"nats-creds" usage:"file with the edge's NATS key (nkey seed)"`
	HTTP           string        `koanf:"http" default:":8000" usage:"host:port for HTTP"`
	HTTPS          string        `koanf:"https" default:":8443" usage:"host:port for HTTPS; empty serves none"`
	DataDir        string        `koanf:"data-dir" default:".slipway/edge" usage:"directory for certificates and the copy of the route table"`
	Metrics        string        `koanf:"metrics" default:"127.0.0.1:9464" usage:"loopback host:port for /metrics and /ready"`
	EdgeID         string        `koanf:"edge-id" usage:"name of this edge, unique among edges; made at start when empty"`
	TrustedProxies []string      `koanf:"trusted-proxies" usage:"address ranges (CIDR) of proxies in front, whose X-Forwarded-For is believed; cloudflare stands for Cloudflare's, whose CF-Connecting-IP is believed too"`
	CloudflareFile string        `koanf:"cloudflare-ranges" usage:"file with Cloudflare's address ranges, one a line, instead of the list that is built in"`
	ProxyProtocol  []string      `koanf:"proxy-protocol-from" usage:"address ranges (CIDR) of load balancers that begin connections with a PROXY protocol header"`
	LogLevel       string        `koanf:"log-level" default:"info" usage:"debug, info, warn or error"`
	BaseDomain     string        `koanf:"base-domain" usage:"domain that the platform's own names are under; with --tls acme others need to be verified"`
	Grace          time.Duration `koanf:"grace" default:"10s" usage:"how long requests may take to finish after SIGTERM"`
	edgetls.Settings
	edgetraffic.Rules
}

// Validate says what to correct, all of it.
func (c Config) Validate() error {
	var errs []error
	listen := func(name, value string) {
		if _, port, err := net.SplitHostPort(value); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("--%s: %q must be host:port or :port", name, value))
		}
	}
	listen("http", c.HTTP)
	if c.HTTPS != "" {
		listen("https", c.HTTPS)
	}
	listen("metrics", c.Metrics)
	if host, _, err := net.SplitHostPort(c.Metrics); err == nil && !loopback(host) {
		errs = append(errs, fmt.Errorf("--metrics: %q must be on the loopback interface, e.g. 127.0.0.1:9464", c.Metrics))
	}
	if c.NATS == "" {
		errs = append(errs, errors.New("--nats: the URL of the NATS server is missing"))
	}
	if c.DataDir == "" {
		errs = append(errs, errors.New("--data-dir: a directory is missing"))
	}
	if c.EdgeID != "" && !subjects.ValidToken(c.EdgeID) {
		errs = append(errs, fmt.Errorf("--edge-id: %q may hold letters, digits, hyphens and underscores only", c.EdgeID))
	}
	for _, r := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(r); err != nil && r != cloudflare.Keyword {
			errs = append(errs, fmt.Errorf("--trusted-proxies: %q is no address range, e.g. 10.0.0.0/8, and not %s", r, cloudflare.Keyword))
		}
	}
	if _, err := cloudflare.Ranges(c.CloudflareFile); err != nil {
		errs = append(errs, fmt.Errorf("--cloudflare-ranges: %w", err))
	}
	for _, r := range c.ProxyProtocol {
		if _, err := netip.ParsePrefix(r); err != nil {
			errs = append(errs, fmt.Errorf("--proxy-protocol-from: %q is no address range, e.g. 10.0.0.0/8", r))
		}
	}
	switch strings.ToLower(c.LogLevel) {
	case "debug", "info", "warn", "error":
	default:
		errs = append(errs, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", c.LogLevel))
	}
	if c.BaseDomain != "" && (c.BaseDomain != table.Host(c.BaseDomain) || strings.ContainsAny(c.BaseDomain, "*/: ") || strings.HasPrefix(c.BaseDomain, ".")) {
		errs = append(errs, fmt.Errorf("--base-domain: %q is no domain like apps.example.com, in lowercase", c.BaseDomain))
	}
	if err := c.Settings.Validate(c.BaseDomain); err != nil {
		errs = append(errs, err)
	}
	if err := c.Rules.Validate(""); err != nil {
		errs = append(errs, err)
	}
	if c.TLS == edgetls.ACME && c.HTTPS == "" {
		errs = append(errs, errors.New("--https: name an address, certificates are of no use without one; or give --tls off"))
	}
	if c.Grace <= 0 || c.Grace > 10*time.Minute {
		errs = append(errs, fmt.Errorf("--grace: %s must be above 0 and at most 10m", c.Grace))
	}
	return errors.Join(errs...)
}

// servesHTTPS reports whether there is an HTTPS listener.
func (c Config) servesHTTPS() bool { return c.HTTPS != "" && c.TLS != edgetls.Off }

// publicHTTPSPort is where the public reaches HTTPS.
func (c Config) publicHTTPSPort() int {
	if c.PublicHTTPSPort != 0 {
		return c.PublicHTTPSPort
	}
	_, port, _ := net.SplitHostPort(c.HTTPS)
	number, err := strconv.Atoi(port)
	if err != nil {
		return 443
	}
	return number
}

// proxies are the ranges of the proxies in front, and those of them that are
// Cloudflare's. c must be valid.
func (c Config) proxies() (all []string, ofCloudflare []netip.Prefix, err error) {
	for _, r := range c.TrustedProxies {
		if r != cloudflare.Keyword {
			all = append(all, r)
			continue
		}
		if ofCloudflare, err = cloudflare.Ranges(c.CloudflareFile); err != nil {
			return nil, nil, err
		}
		for _, r := range ofCloudflare {
			all = append(all, r.String())
		}
	}
	return all, ofCloudflare, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// edgeID is the configured one or a new one: an edge keeps nothing across
// restarts that would need its old name.
func (c Config) edgeID() (string, error) {
	if c.EdgeID != "" {
		return c.EdgeID, nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("making an edge id: %w", err)
	}
	return "edge-" + id.String(), nil
}

// logLevel is the variable that all services share; config.Load leaves it alone.
func logLevel(environ []string) string {
	for _, entry := range environ {
		if level, ok := strings.CutPrefix(entry, "SLIPWAY_LOG_LEVEL="); ok {
			return level
		}
	}
	return ""
}
