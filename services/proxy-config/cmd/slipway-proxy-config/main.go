// Command slipway-proxy-config writes the routes that edges serve, and records
// when they do.
package main

import (
	"context"
	"time"

	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/service"
	proxyconfig "github.com/slipway-paas/slipway/services/proxy-config"
)

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	proxyconfig.Config
}

func main() {
	c := settings{Config: proxyconfig.DefaultConfig()}
	service.Main("slipway-proxy-config", version, &c, func(_ context.Context, p *service.Process) error {
		nc, js, err := p.NATS(natsconn.RolePlatform)
		if err != nil {
			return err
		}
		events := jetstream.New(js, p.Log,
			jetstream.WithTracer(p.Observer.Tracer("eventstore")), jetstream.WithMeter(p.Observer.Meter()))
		s, err := proxyconfig.New(c.Config, proxyconfig.Deps{
			Store: events, NATS: nc, JetStream: js,
			Meter: p.Observer.Meter(), Tracer: p.Observer.Tracer("proxy-config"),
			Registry: p.Observer.Registry, Now: time.Now, Log: p.Log,
		})
		if err != nil {
			return err
		}
		p.Add("proxy-config", s)
		return nil
	})
}
