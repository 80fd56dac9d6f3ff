package domains

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/slipway-paas/slipway/libs/domainname"
)

// Config is what the service is told at start.
type Config struct {
	// BaseDomain is where apps' own hosts are, e.g. apps.localhost.
	BaseDomain string `koanf:"base-domain" usage:"domain that apps live under"`
	// OwnHosts nobody may bring as a domain, the public API's for one.
	OwnHosts []string `koanf:"own-hosts" usage:"hosts that the platform itself answers at, which nobody may bring as a custom domain"`
	Settings
}

// Settings are what an operator of the platform can set about domains, wherever the
// service runs.
type Settings struct {
	// Resolver is whom DNS is asked of.
	Resolver string `koanf:"resolver" usage:"host:port of the DNS server that custom domains are looked up with; the system's when empty"`
	// EdgeName and EdgeAddresses are what custom domains may lead to beside the app's own host.
	EdgeName      string   `koanf:"edge-name" usage:"a name that leads to the edges, which custom domains may be an alias of"`
	EdgeAddresses []string `koanf:"edge-addresses" usage:"public IP addresses of the edges, which custom domains that cannot be an alias may have"`
	// GiveUp is how long a domain is looked for, Recheck is between two looks at one
	// that is verified.
	GiveUp  time.Duration `koanf:"domain-give-up" default:"72h" usage:"how long the DNS of a new custom domain is looked at"`
	Recheck time.Duration `koanf:"domain-recheck" default:"6h" usage:"how often the DNS of a verified custom domain is looked at"`
}

// leastRecheck keeps from asking DNS servers more than they like.
const leastRecheck = time.Minute

// DefaultConfig is what holds where nothing else is said.
func DefaultConfig() Config {
	return Config{BaseDomain: "apps.localhost", Settings: DefaultSettings()}
}

// DefaultSettings are those of DefaultConfig.
func DefaultSettings() Settings {
	return Settings{GiveUp: 72 * time.Hour, Recheck: 6 * time.Hour}
}

// Validate says everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.BaseDomain == "" {
		errs = append(errs, errors.New("--base-domain is empty: name the domain that apps live under, e.g. apps.localhost"))
	}
	return errors.Join(append(errs, c.Settings.Validate())...)
}

// Validate says everything that is wrong.
func (s Settings) Validate() error {
	var errs []error
	if _, _, err := net.SplitHostPort(s.Resolver); s.Resolver != "" && err != nil {
		errs = append(errs, fmt.Errorf("--resolver: %q must be host:port, like 192.0.2.53:53", s.Resolver))
	}
	if s.EdgeName != "" {
		if name, faults := (domainname.Rules{}).Parse(s.EdgeName); len(faults) > 0 || name != s.EdgeName {
			errs = append(errs, fmt.Errorf("--edge-name: %q must be a domain name in lowercase ASCII, like edge.example.com", s.EdgeName))
		}
	}
	for _, text := range s.EdgeAddresses {
		if _, err := netip.ParseAddr(text); err != nil {
			errs = append(errs, fmt.Errorf("--edge-addresses: %q is no IP address", text))
		}
	}
	if s.GiveUp <= 0 {
		errs = append(errs, fmt.Errorf("--domain-give-up is %s: it must be above zero", s.GiveUp))
	}
	if s.Recheck < leastRecheck {
		errs = append(errs, fmt.Errorf("--domain-recheck is %s: it must be %s or longer", s.Recheck, leastRecheck))
	}
	return errors.Join(errs...)
}

func (c Config) rules() domainname.Rules {
	return domainname.Rules{Base: c.BaseDomain, Own: append([]string{c.EdgeName}, c.OwnHosts...)}
}

func (c Config) addresses() []netip.Addr {
	var out []netip.Addr
	for _, text := range c.EdgeAddresses {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}
