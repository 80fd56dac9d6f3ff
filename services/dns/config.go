package dns

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns/wanted"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

// Cloudflare is how Cloudflare is reached. With no token, now or kept from before, no
// zone is held.
type Cloudflare struct {
	TokenFile string `koanf:"token-file" usage:"file with the API token (Zone:Read, DNS:Edit, Cloudflare Tunnel:Edit); it is sealed and kept, so that the file may go"`
	Token     string `koanf:"token" secret:"true" usage:"the API token itself instead of a file, for the environment"`
	Forget    bool   `koanf:"forget" usage:"forget the API token that is kept"`
	URL       string `koanf:"url" usage:"base of the API; Cloudflare's own when empty"`
	Account   string `koanf:"account" usage:"id of the account that holds tunnels; that of the first zone when empty"`
	Rate      int    `koanf:"rate" default:"1000" usage:"API calls in five minutes, of the 1200 that Cloudflare answers"`
}

// Config is what an operator of the platform can set.
type Config struct {
	// BaseDomain is what apps live under; it and Cloudflare are set by With.
	BaseDomain string
	Cloudflare Cloudflare

	Zones         []string      `koanf:"zones" usage:"whose custom domains may be in a zone that is held: zone=org, or zone=* for every organization; other zones are the platform's own"`
	EdgeAddresses []string      `koanf:"edge-addresses" usage:"addresses, or one name, that the base domain and everything under it lead to; no records of them when empty"`
	TTL           int           `koanf:"ttl" default:"1" usage:"TTL of records in seconds, 60 to 86400; 1 leaves it to the provider"`
	Proxied       bool          `koanf:"proxied" usage:"have the provider stand before custom domains and the base domain"`
	Owner         string        `koanf:"owner" usage:"mark of this platform's records; the base domain when empty. Another mark makes them somebody else's"`
	TunnelService string        `koanf:"tunnel-service" default:"http://127.0.0.1:8000" usage:"where cloudflared reaches an edge"`
	CompareEvery  time.Duration `koanf:"compare-every" default:"10m" usage:"how often all that is wanted is compared with all that is there, 1s or longer"`
	Settle        time.Duration `koanf:"settle" default:"10s" usage:"how long the provider may take to show what was written"`
}

// With is the configuration with what is set beside it.
func (c Config) With(baseDomain string, cf Cloudflare) Config {
	c.BaseDomain, c.Cloudflare = baseDomain, cf
	return c
}

// least is the shortest time between two comparisons.
const least = time.Second

var hostname = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Validate says everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if _, err := c.use(); err != nil {
		errs = append(errs, err)
	}
	for _, edge := range c.EdgeAddresses {
		if _, err := netip.ParseAddr(edge); err == nil {
			continue
		}
		if !hostname.MatchString(edge) || len(c.EdgeAddresses) > 1 {
			errs = append(errs, fmt.Errorf("--dns-edge-addresses: %q is no address; give addresses, or one name alone", edge))
		}
	}
	if c.TTL != 0 && c.TTL != zone.AutomaticTTL && (c.TTL < 60 || c.TTL > 86400) {
		errs = append(errs, fmt.Errorf("--dns-ttl: %d must be 1, or 60 to 86400", c.TTL))
	}
	if c.CompareEvery != 0 && c.CompareEvery < least {
		errs = append(errs, fmt.Errorf("--dns-compare-every: %v is too short; use %v or longer", c.CompareEvery, least))
	}
	if c.Settle < 0 {
		errs = append(errs, errors.New("--dns-settle: it must not be negative"))
	}
	if why := badService(cmp.Or(c.TunnelService, defaultService)); why != "" {
		errs = append(errs, fmt.Errorf("--dns-tunnel-service: %s", why))
	}
	if c.Cloudflare.TokenFile != "" && c.Cloudflare.Token != "" {
		errs = append(errs, errors.New("--cloudflare-token-file and SLIPWAY_CLOUDFLARE_TOKEN: give one of them"))
	}
	if c.Cloudflare.Forget && (c.Cloudflare.TokenFile != "" || c.Cloudflare.Token != "") {
		errs = append(errs, errors.New("--cloudflare-forget: a token is given too; take one of them away"))
	}
	if c.Cloudflare.Rate < 0 {
		errs = append(errs, errors.New("--cloudflare-rate: it must not be negative"))
	}
	if c.Cloudflare.URL != "" {
		if u, err := url.Parse(c.Cloudflare.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			errs = append(errs, fmt.Errorf("--cloudflare-url: %q is no http:// or https:// URL", c.Cloudflare.URL))
		}
	}
	return errors.Join(errs...)
}

const (
	defaultService = "http://127.0.0.1:8000"
	defaultEvery   = 10 * time.Minute
)

// badService says why cloudflared cannot send requests there.
func badService(service string) string {
	u, err := url.Parse(service)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || service != u.Scheme+"://"+u.Host {
		return fmt.Sprintf("%q must be http://host:port or https://host:port", service)
	}
	return ""
}

func (c Config) use() (map[string]string, error) {
	use := map[string]string{}
	for _, entry := range c.Zones {
		apex, org, _ := strings.Cut(strings.ToLower(entry), "=")
		// An org's id keeps its case.
		if _, kept, ok := strings.Cut(entry, "="); ok {
			org = kept
		}
		switch {
		case !hostname.MatchString(apex) || strings.HasPrefix(apex, "*"):
			return nil, fmt.Errorf("--dns-zones: %q is no zone=org, like customers.example=org-id or customers.example=*", entry)
		case org != "" && org != wanted.Shared && (!subjects.ValidToken(org) || org == subjects.Platform):
			return nil, fmt.Errorf("--dns-zones: %q is no organization's id", org)
		}
		if _, twice := use[apex]; twice {
			return nil, fmt.Errorf("--dns-zones: %s is there twice", apex)
		}
		use[apex] = org
	}
	return use, nil
}

func (c Config) policy() (wanted.Policy, error) {
	use, err := c.use()
	return wanted.Policy{BaseDomain: c.BaseDomain, Edge: c.EdgeAddresses, TTL: c.TTL, Proxied: c.Proxied, Use: use}, err
}

// maxToken is more than any API token has, in bytes.
const maxToken = 4096

// given is the token of the file or the environment; empty for none.
func (c Cloudflare) given() (string, error) {
	if c.TokenFile == "" {
		return strings.TrimSpace(c.Token), nil
	}
	text, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("--cloudflare-token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || len(token) > maxToken || strings.ContainsAny(token, " \r\n\t") {
		// What is in it is not told: it may be half of a token.
		return "", fmt.Errorf("--cloudflare-token-file: %s does not hold one token and nothing else", c.TokenFile)
	}
	return token, nil
}
