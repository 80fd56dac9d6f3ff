package standalone

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/services/node-agent/node"
)

// stopAppsWithin bounds how long the apps' containers may take to stop.
const stopAppsWithin = 25 * time.Second

func (p *platform) buildNodeAgent(ctx context.Context, g *ground) error {
	nc, js, err := p.connectNode(g)
	if err != nil {
		return err
	}
	facts := eventlog.New(js, p.log,
		eventlog.WithTracer(p.options.Observer.Tracer("eventstore")), eventlog.WithMeter(p.options.Observer.Meter()),
		eventlog.WithWritable(g.writable))
	agent, err := node.Open(ctx, p.config.node(), node.Deps{
		NATS: nc, JetStream: js, Facts: facts, Log: p.log.With("part", "node-agent"),
		Metrics: p.options.Observer.Registry, Meter: p.options.Observer.Meter(), Tracer: p.options.Observer.Tracer("node-agent"), Version: p.options.Version,
	})
	if err != nil {
		return err
	}
	p.onClose(agent.Close)
	p.group.Add("node-agent", localNode{Node: agent, platform: ctx})
	return nil
}

// connectNode connects as this machine's node, which may then do what any other node may
// and no more. With NATS servers of the operator's own it has the platform's key.
func (p *platform) connectNode(g *ground) (*nats.Conn, jetstream.JetStream, error) {
	c := g.asNode
	c.Name = "node-agent " + p.config.Node.ID
	nc, err := natsconn.Connect(c)
	if err != nil {
		return nil, nil, fmt.Errorf("--node-id: %w", err)
	}
	p.onClose(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, nil, fmt.Errorf("use JetStream: %w", err)
	}
	return nc, js, nil
}

// node is the node-agent's share of the configuration.
func (c Config) node() node.Config {
	return node.Config{
		NodeID: c.Node.ID, PlatformID: "slipway", DataDir: c.dir().Node(c.Node.ID),
		MemoryMB: c.Node.MemoryMB, CPUMillicores: c.Node.CPUMillicores,
		InsecureRegistries: []string{local(c.Registry)}, NamespacePool: c.Node.NamespacePool,
		PruneImagesAfter: c.Node.PruneImagesAfter,
	}
}

// localNode is this machine's node. Its apps stop with it when that is why the
// platform stops.
type localNode struct {
	*node.Node
	platform context.Context
}

func (n localNode) Run(ctx context.Context) error {
	err := n.Node.Run(ctx)
	if !errors.Is(context.Cause(n.platform), ErrStopApps) {
		return err
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopAppsWithin)
	defer cancel()
	if stopErr := n.StopApps(bounded); stopErr != nil {
		return errors.Join(err, fmt.Errorf("stop the apps: %w", stopErr))
	}
	return err
}
