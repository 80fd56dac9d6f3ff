// Command slipway-subscriptions lets NATS clients of organizations read their events.
package main

import (
	"context"

	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/services/subscriptions"
)

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	Subscriptions subscriptions.Config `koanf:"subscriptions"`
}

func main() {
	c := settings{Subscriptions: subscriptions.DefaultConfig()}
	service.Main("slipway-subscriptions", version, &c, func(_ context.Context, p *service.Process) error {
		_, js, err := p.NATS(natsconn.RolePlatform)
		if err != nil {
			return err
		}
		events := jetstream.New(js, p.Log,
			jetstream.WithTracer(p.Observer.Tracer("eventstore")), jetstream.WithMeter(p.Observer.Meter()))
		s, err := subscriptions.New(c.Subscriptions, subscriptions.Deps{Store: events, JetStream: js, Metrics: p.Observer.Registry, Log: p.Log})
		if err != nil {
			return err
		}
		p.Add("subscriptions", s)
		return nil
	})
}
