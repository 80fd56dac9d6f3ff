// Command slipway-registry is the platform's OCI registry as a process of its own.
package main

import (
	"context"

	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/services/registry"
)

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	registry.Config
}

func main() {
	c := settings{Config: registry.Config{StoreDir: "registry"}}
	service.Main("slipway-registry", version, &c, func(_ context.Context, p *service.Process) error {
		s, err := registry.New(c.Config, registry.Deps{Log: p.Log})
		if err != nil {
			return err
		}
		p.Log.Info("registry listening", "address", s.Addr())
		p.Add("registry", s)
		return nil
	})
}
