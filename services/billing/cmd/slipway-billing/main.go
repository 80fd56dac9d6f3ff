// Command slipway-billing answers for tiers.
package main

import (
	"context"

	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/services/billing"
)

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	billing.Config
}

func main() {
	var c settings
	service.Main("slipway-billing", version, &c, func(_ context.Context, p *service.Process) error {
		s, err := billing.New(c.Config)
		if err != nil {
			return err
		}
		s.Register(p.RPC("gateway", "scheduler"))
		p.Add("billing", s)
		return nil
	})
}
