package sim

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/health"
	nodeagent "github.com/slipway-paas/slipway/services/node-agent"
	proxyconfig "github.com/slipway-paas/slipway/services/proxy-config"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
	"github.com/slipway-paas/slipway/services/scheduler"
)

func (w *world) newScheduler(p *proc) func(context.Context) error {
	config := scheduler.DefaultConfig()
	config.BaseDomain, config.AllowedRegistries, config.Rollout = "apps.test", []string{"registry.test/"}, plantRollout()
	s, err := scheduler.New(config, scheduler.Deps{
		Store: store{p, w.log}, Tiers: tiers{}, Seal: sealer{p, w.keys}, Now: time.Now, Log: discard, AtOnce: 1,
	})
	if err != nil {
		panic(err)
	}
	w.scheduler = s
	s.Register(registrar{w})
	return func(ctx context.Context) error {
		return s.Carry(ctx, scheduler.Buckets{
			Desired: desired{reach[*nodev1.DesiredInstance]{p: p, b: w.desired, puts: kindPut}},
			Targets: reach[*healthv1.Target]{p: p, b: w.targets, puts: kindPut},
			Nodes:   heartbeats{reach[*nodev1.Node]{p: p, b: w.nodes}},
		})
	}
}

// rolloutConfig has the shape of the default, made short.
var rolloutConfig = scheduler.Rollout{
	PlacementTimeout: 40 * time.Second, StartTimeout: 30 * time.Second, HealthyTimeout: 20 * time.Second, StopTimeout: 20 * time.Second,
	Drain: 3 * time.Second, Grace: 5 * time.Second, ProbePath: "/", ProbeInterval: 2 * time.Second, ProbeTimeout: time.Second, UnhealthyAfter: 3,
}

// registrar takes the scheduler's server, to be called without a network.
type registrar struct{ w *world }

func (r registrar) RegisterService(_ *grpc.ServiceDesc, impl any) {
	if s, ok := impl.(schedulerv1.SchedulerServiceServer); ok {
		r.w.server = s
	}
	if s, ok := impl.(adminv1.AdminServiceServer); ok {
		r.w.admin = s
	}
}

type heartbeats struct{ reach[*nodev1.Node] }

func (h heartbeats) Watch(ctx context.Context, filter string, handle func(context.Context, view.Change[*nodev1.Node]) error, ready func()) error {
	return h.reach.Watch(ctx, filter, func(ctx context.Context, c view.Change[*nodev1.Node]) error {
		if planted == plantOverbook && !c.Deleted {
			c.Value.MemoryMb *= 2
		}
		return handle(ctx, c)
	}, ready)
}

func (w *world) newProxy(p *proc) func(context.Context) error {
	s, err := proxyconfig.New(proxyconfig.DefaultConfig(), proxyconfig.Deps{Store: store{p, w.log}, Now: time.Now, Log: discard})
	if err != nil {
		panic(err)
	}
	w.proxy = s
	return func(ctx context.Context) error {
		return s.Keep(ctx, reach[*routingv1.Route]{p: p, b: w.routes, puts: kindPut})
	}
}

func (w *world) newHealth(p *proc) func(context.Context) error {
	s, err := health.New(health.Config{}, health.Deps{
		Store: store{p, w.log}, Log: discard,
		Publish: func(string, []byte) error { return nil },
		Jitter:  func() float64 { return .5 },
		Probe: func(ctx context.Context, t *healthv1.Target, _ time.Duration) (ok bool, reason string) {
			err := p.do(ctx, kindProbe, w.short(t.InstanceId), func(verdict) error {
				ok, reason = w.answers(t.InstanceId, t.Address), "no answer"
				return nil
			})
			return ok && err == nil, reason
		},
	})
	if err != nil {
		panic(err)
	}
	return func(ctx context.Context) error {
		return s.Watch(ctx, reach[*healthv1.Target]{p: p, b: w.targets})
	}
}

func (w *world) newAgent(p *proc, m *machine) func(context.Context) error {
	p.machine = m
	s, err := nodeagent.New(nodeagent.Config{
		NodeID: m.id, DataDir: m.dir, MemoryMB: w.plan.room, CPUMillicores: 4000, Concurrency: 64,
	}, nodeagent.Deps{
		Runtime: containerRuntime{m.Runtime("sim/" + m.id), p, m},
		Desired: reach[*nodev1.DesiredInstance]{p: p, b: w.desired},
		Nodes:   reach[*nodev1.Node]{p: p, b: w.nodes, puts: kindBeat},
		Facts:   store{p, w.log}, Secrets: secrets{p}, Log: discard,
		Turn: func(ctx context.Context, instance string) {
			_ = p.do(ctx, kindTurn, w.short(instance), func(verdict) error { return nil })
		},
	})
	if err != nil {
		panic(err)
	}
	return s.Run
}

// secrets asks the scheduler that lives.
type secrets struct{ p *proc }

func (s secrets) Env(ctx context.Context, node, instance string) (env map[string]string, err error) {
	err = s.p.do(ctx, kindSecrets, s.p.w.short(instance), func(verdict) error {
		if s.p.w.procs["scheduler"].dead {
			return errAway
		}
		answer := s.p.w.scheduler.Secrets(ctx, subjects.SecretsRequest(node, instance))
		if answer.Error != "" {
			return fmt.Errorf("%w: %s", nodeagent.ErrSecretsRefused, answer.Error)
		}
		env = answer.Env
		return nil
	})
	return env, err
}

// edge is a real route table fed from the view, as slipway-edge feeds its own.
type edge struct {
	table *table.Table
	p     *proc
	// heard is when proxy-config last heard it, and which proxy-config that was.
	heard time.Time
	by    *proxyconfig.Service
	since time.Time // when it was loaded
}

func (w *world) newEdge(p *proc) func(context.Context) error {
	e := &edge{table: &table.Table{}, p: p}
	w.edges[p.name] = e
	return func(ctx context.Context) error {
		changed := make(chan struct{}, 1)
		acks := make(chan struct{})
		go func() {
			defer close(acks)
			w.acknowledge(ctx, e, changed)
		}()
		defer func() { <-acks }()
		var first []*routingv1.Route
		var revision uint64
		// What was deleted before leaves no value behind, and is applied all the same.
		r := reach[*routingv1.Route]{p: p, b: w.routes, opened: &revision}
		return r.Watch(ctx, ">", func(_ context.Context, c view.Change[*routingv1.Route]) error {
			switch {
			case e.since.IsZero():
				first, revision = append(first, c.Value), max(revision, c.Revision)
			case c.Deleted:
				e.table.Delete(c.Key, c.Revision)
			default:
				e.table.Put(c.Value, c.Revision)
			}
			select {
			case changed <- struct{}{}:
			default:
			}
			return nil
		}, func() {
			e.since = time.Now()
			e.table.Replace(first, revision)
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}
}

// acknowledge tells proxy-config what the edge serves, on each change and each second.
func (w *world) acknowledge(ctx context.Context, e *edge, changed <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(time.Second):
		}
		if e.since.IsZero() {
			continue
		}
		ack := &routingv1.EdgeApplied{EdgeId: e.p.name, Revision: e.table.Revision()}
		if planted == plantEdgeAckEarly {
			ack.Revision += 2
		}
		if err := e.p.do(ctx, kindAck, "", func(verdict) error {
			if !w.procs["proxy"].dead {
				e.heard, e.by = time.Now(), w.proxy
				w.proxy.Hear(ack)
			}
			return nil
		}); err != nil {
			return
		}
	}
}
