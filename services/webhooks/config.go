package webhooks

import (
	"fmt"
	"net/netip"

	"github.com/slipway-paas/slipway/services/webhooks/guard"
)

// Config is what an operator of the platform can set.
type Config struct {
	// AllowHTTP and AllowNetworks are for platforms whose endpoints are inside.
	AllowHTTP     bool     `koanf:"allow-http" usage:"let webhooks go to http:// URLs"`
	AllowNetworks []string `koanf:"allow-networks" usage:"networks (CIDR) that are not public and that webhooks may go to all the same"`
}

// Validate says what is wrong.
func (c Config) Validate() error {
	_, err := c.guard()
	return err
}

func (c Config) guard() (guard.Guard, error) {
	g := guard.Guard{AllowHTTP: c.AllowHTTP}
	for _, text := range c.AllowNetworks {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return g, fmt.Errorf("--webhooks-allow-networks: %q is no network such as 10.0.0.0/8", text)
		}
		g.Allow = append(g.Allow, p.Masked())
	}
	return g, nil
}
