package proxyconfig_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
	proxyconfig "github.com/slipway-paas/slipway/services/proxy-config"
)

const (
	host     = "shop.apps.test"
	patience = 15 * time.Second
)

// platform is a real NATS with the log and the views, and somebody who writes
// events and plays edges.
type platform struct {
	t      *testing.T
	nc     *nats.Conn
	js     natsjs.JetStream
	store  eventstore.Store
	routes *view.View[*routingv1.Route]
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	keys, err := natsconn.EnsureKeys(filepath.Join(dir, "keys"))
	must(t, err)
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: filepath.Join(dir, "store"), Keys: keys, Log: log})
	must(t, err)
	t.Cleanup(server.Stop)
	nc, err := natsconn.Connect(natsconn.Config{URL: server.URL(), SeedFile: server.SeedFile(natsconn.RolePlatform), Name: "test", Log: log})
	must(t, err)
	t.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	must(t, err)
	must(t, natsconn.Provision(t.Context(), js, 1))
	routes, err := view.Open(t.Context(), js, subjects.BucketRoutes, func() *routingv1.Route { return &routingv1.Route{} })
	must(t, err)
	return &platform{t: t, nc: nc, js: js, store: jetstream.New(js, log), routes: routes}
}

// serve runs the service until the returned function is called.
func (p *platform) serve() (stop func()) {
	p.t.Helper()
	s, err := proxyconfig.New(proxyconfig.Config{EdgeSilence: time.Second, ListenFirst: 50 * time.Millisecond, Recheck: time.Second}, proxyconfig.Deps{
		Store: p.store, NATS: p.nc, JetStream: p.js, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	must(p.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("the service ended with %v", err)
		}
		ended <- nil
	}
	p.t.Cleanup(stop)
	p.eventually("ready", func() bool { return s.Ready() == nil })
	return stop
}

// edge plays an edge that serves whatever apply returns, until it is stopped.
func (p *platform) edge(id string, apply func() uint64) (stop func()) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			p.acknowledge(id, apply(), false)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	stop = func() { cancel(); <-done }
	p.t.Cleanup(stop)
	return stop
}

func (p *platform) acknowledge(id string, revision uint64, closing bool) {
	msg, err := proto.Marshal(&routingv1.EdgeApplied{EdgeId: id, Revision: revision, Closing: closing})
	if err != nil {
		p.t.Error(err)
		return
	}
	if err := p.nc.Publish(subjects.EdgeApplied(id), msg); err != nil && p.t.Context().Err() == nil {
		p.t.Error(err)
	}
}

func always() uint64 { return 1 << 40 }
func never() uint64  { return 0 }

func (p *platform) happened(id string, events ...proto.Message) {
	p.t.Helper()
	for _, e := range events {
		_, err := p.store.Record(p.t.Context(), eventstore.Event{
			Aggregate: subjects.Of("acme", subjects.Deployment, id), ID: uuid.NewString(), Payload: e, Time: time.Now(), Source: "test",
		})
		must(p.t, err)
	}
}

func (p *platform) goesTo(host, want string) {
	p.t.Helper()
	got := ""
	p.eventually(fmt.Sprintf("%s goes to %s", host, want), func() bool {
		e, there, err := p.routes.Get(p.t.Context(), host)
		must(p.t, err)
		got = "none"
		if there {
			got = e.Value.GetState().String()
			for _, u := range e.Value.GetUpstreams() {
				got = u.GetInstanceId()
			}
		}
		return got == want
	})
}

// facts are the RouteBound and RouteRemoved events of a deployment, in order.
func (p *platform) facts(id string) []proto.Message {
	p.t.Helper()
	events, err := p.store.Load(p.t.Context(), subjects.Of("acme", subjects.Deployment, id), 0)
	must(p.t, err)
	var facts []proto.Message
	for _, e := range events {
		switch e.Payload.(type) {
		case *deploymentv1.RouteBound, *deploymentv1.RouteRemoved:
			facts = append(facts, e.Payload)
		}
	}
	return facts
}

func (p *platform) said(id string, n int) []proto.Message {
	p.t.Helper()
	p.eventually(fmt.Sprintf("%d facts about %s", n, id), func() bool { return len(p.facts(id)) >= n })
	facts := p.facts(id)
	if len(facts) != n {
		p.t.Fatalf("%d facts about %s, want %d: %v", len(facts), id, n, facts)
	}
	return facts
}

func (p *platform) eventually(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			p.t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func deployed(id, instance string) []proto.Message {
	return []proto.Message{
		&deploymentv1.DeploymentRequested{DeploymentId: id, OrgId: "acme", Host: host, Release: &deploymentv1.Release{Id: "r1", Number: 1}},
		&deploymentv1.DeploymentScheduled{ReleaseId: "r1", Placements: []*deploymentv1.Placement{{InstanceId: instance, NodeId: "n1"}}},
		&deploymentv1.ContainerStarted{ReleaseId: "r1", InstanceId: instance, ContainerId: "c", Address: "10.0.0.1:80", Attempt: 1},
		&deploymentv1.InstanceHealthy{ReleaseId: "r1", InstanceId: instance, ContainerId: "c", Attempt: 1},
	}
}

func TestARouteIsBoundOnceEveryLivingEdgeServesIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.serve()
	p.edge("fast", always)
	stopSlow := p.edge("slow", never)
	p.happened("d1", deployed("d1", "i1")...)
	p.goesTo(host, "i1")
	if facts := p.facts("d1"); len(facts) != 0 {
		t.Fatalf("bound although an edge does not serve it: %v", facts)
	}
	stopSlow()
	p.acknowledge("slow", 0, true)
	bound := p.said("d1", 1)[0].(*deploymentv1.RouteBound)
	e, _, err := p.routes.Get(t.Context(), host)
	must(t, err)
	if bound.GetReleaseId() != "r1" || !slices.Equal(bound.GetHosts(), []string{host}) ||
		!slices.Equal(bound.GetInstanceIds(), []string{"i1"}) || bound.GetRevision() != e.Revision {
		t.Errorf("recorded %v, the route has revision %d", bound, e.Revision)
	}
}

func TestAnEdgeThatFallsSilentIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.serve()
	p.edge("alive", always)
	stop := p.edge("dying", never)
	p.happened("d1", deployed("d1", "i1")...)
	p.goesTo(host, "i1")
	stop()
	p.said("d1", 1)
}

func TestWithoutAnyEdgeItWaits(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.serve()
	p.happened("d1", deployed("d1", "i1")...)
	p.goesTo(host, "i1")
	if facts := p.facts("d1"); len(facts) != 0 {
		t.Fatalf("bound without an edge: %v", facts)
	}
	p.edge("late", always)
	p.said("d1", 1)
}

func TestStopAndDestroyAreSaidOnceNoEdgeServesTheApp(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.serve()
	p.edge("e1", always)
	p.happened("d1", deployed("d1", "i1")...)
	p.said("d1", 1)
	p.happened("d1", &deploymentv1.DeploymentRunning{ReleaseId: "r1"}, &deploymentv1.StopRequested{})
	p.goesTo(host, "ROUTE_STATE_STOPPED")
	if _, ok := p.said("d1", 2)[1].(*deploymentv1.RouteRemoved); !ok {
		t.Errorf("after a stop: %v", p.facts("d1"))
	}
	p.happened("d1", &deploymentv1.DeploymentStopped{}, &deploymentv1.DestroyRequested{})
	p.goesTo(host, "none")
	p.happened("d2", deployed("d2", "i2")...)
	p.goesTo(host, "i2")
	p.said("d2", 1)
}

func TestARestartFoldsFirstAndWritesOnlyDifferences(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	stop := p.serve()
	p.happened("d1", deployed("d1", "i1")...)
	p.goesTo(host, "i1")
	before, _, err := p.routes.Get(t.Context(), host)
	must(t, err)
	stop()

	_, err = p.routes.Put(t.Context(), "orphan.test", &routingv1.Route{Host: "orphan.test", Sequence: 1})
	must(t, err)
	p.edge("e1", always)
	p.serve()
	p.goesTo("orphan.test", "none")
	p.said("d1", 1)
	after, _, err := p.routes.Get(t.Context(), host)
	must(t, err)
	if before.Revision != after.Revision {
		t.Errorf("the route was written again: revision %d, then %d", before.Revision, after.Revision)
	}
}

func TestWhatSomebodyElseDidToTheViewIsPutRight(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.serve()
	p.happened("d1", deployed("d1", "i1")...)
	p.goesTo(host, "i1")
	_, err := p.routes.Delete(t.Context(), host)
	must(t, err)
	_, err = p.routes.Put(t.Context(), "intruder.test", &routingv1.Route{Host: "intruder.test"})
	must(t, err)
	p.goesTo(host, "i1")
	p.goesTo("intruder.test", "none")
}

func TestADestroyIsSaidAlthoughTheServiceWasRestartedInBetween(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	stop := p.serve()
	stopEdge := p.edge("e1", always)
	p.happened("d1", deployed("d1", "i1")...)
	p.said("d1", 1)
	stopEdge()
	p.acknowledge("e1", 0, true)
	p.happened("d1", &deploymentv1.DestroyRequested{})
	p.goesTo(host, "none")
	stop()

	p.serve()
	p.edge("e2", func() uint64 {
		info, err := p.js.Stream(context.Background(), "KV_"+subjects.BucketRoutes)
		if err != nil {
			return 0
		}
		return info.CachedInfo().State.LastSeq
	})
	if _, ok := p.said("d1", 2)[1].(*deploymentv1.RouteRemoved); !ok {
		t.Errorf("after a destroy: %v", p.facts("d1"))
	}
}
