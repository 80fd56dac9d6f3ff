// Command slipway-domains keeps the domains that apps' owners bring.
package main

import (
	"context"

	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/services/domains"
)

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	domains.Config
}

func main() {
	c := settings{Config: domains.DefaultConfig()}
	service.Main("slipway-domains", version, &c, func(_ context.Context, p *service.Process) error {
		nc, js, err := p.NATS(natsconn.RolePlatform)
		if err != nil {
			return err
		}
		events := jetstream.New(js, p.Log,
			jetstream.WithTracer(p.Observer.Tracer("eventstore")), jetstream.WithMeter(p.Observer.Meter()))
		s, err := domains.New(c.Config, domains.Deps{Store: events, NATS: nc, Metrics: p.Observer.Registry, Log: p.Log})
		if err != nil {
			return err
		}
		s.Register(p.RPC("gateway"))
		p.Add("domains", s)
		return nil
	})
}
