// Command slipway-node-agent runs on one node what the platform wants there. With
// the word purge first it removes what such an agent left on the machine instead.
package main

import (
	"context"
	"os"

	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/services/node-agent/node"
)

const name = "slipway-node-agent"

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	node.Config
}

// agent lets go of Podman when it has stopped.
type agent struct{ *node.Node }

func (a agent) Run(ctx context.Context) error {
	defer a.Close()
	return a.Node.Run(ctx)
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "purge" {
		os.Exit(purge(os.Args[2:]))
	}
	var c settings
	service.Main(name, version, &c, func(ctx context.Context, p *service.Process) error {
		nc, js, err := p.NATSOfNode(c.NodeID)
		if err != nil {
			return err
		}
		events := jetstream.New(js, p.Log,
			jetstream.WithTracer(p.Observer.Tracer("eventstore")), jetstream.WithMeter(p.Observer.Meter()))
		n, err := node.Open(ctx, c.Config, node.Deps{
			NATS: nc, JetStream: js, Facts: events, Log: p.Log,
			Metrics: p.Observer.Registry, Meter: p.Observer.Meter(), Tracer: p.Observer.Tracer("node-agent"), Version: p.Version,
		})
		if err != nil {
			return err
		}
		p.Add("node-agent", agent{n})
		return nil
	})
}
