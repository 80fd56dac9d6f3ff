// Command slipway-health probes every instance and says what changes.
package main

import (
	"context"

	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/services/health"
)

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	health.Config
}

func main() {
	var c settings
	service.Main("slipway-health", version, &c, func(_ context.Context, p *service.Process) error {
		nc, js, err := p.NATS(natsconn.RolePlatform)
		if err != nil {
			return err
		}
		events := jetstream.New(js, p.Log,
			jetstream.WithTracer(p.Observer.Tracer("eventstore")), jetstream.WithMeter(p.Observer.Meter()))
		s, err := health.New(c.Config, health.Deps{
			Store: events, NATS: nc, JetStream: js, Log: p.Log,
			Metrics: p.Observer.Registry, Meter: p.Observer.Meter(), Tracer: p.Observer.Tracer("health"),
		})
		if err != nil {
			return err
		}
		p.Add("health", s)
		return nil
	})
}
