package rollout_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/fleet"
	"github.com/slipway-paas/slipway/services/scheduler/placement"
	"github.com/slipway-paas/slipway/services/scheduler/rollout"
)

// world is a reactor over the memory log, with nodes, views and keys that only
// remember. Time is virtual.
type world struct {
	t       *testing.T
	store   *memory.Store
	fleet   *fleet.Fleet
	reactor *rollout.Reactor
	mu      sync.Mutex
	nodes   []placement.Node
	views   map[string]deployment.State
	gone    []string
	fail    error
}

func (w *world) Live() []placement.Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.nodes)
}

func (w *world) Publish(_ context.Context, s deployment.State) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.views[s.ID] = s
	return w.fail
}

func (w *world) Destroy(_ context.Context, a subjects.Aggregate) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = append(w.gone, a.ID)
	return nil
}

func (w *world) With(context.Context, deployment.State, proto.Message) ([]eventstore.Expected, error) {
	return nil, nil
}

func start(t *testing.T, nodes ...placement.Node) *world {
	t.Helper()
	w := &world{t: t, store: memory.New(), fleet: fleet.New(), nodes: nodes, views: map[string]deployment.State{}}
	w.reactor = rollout.New(rollout.Deps{Store: w.store, Fleet: w.fleet, Nodes: w, Views: w, Keys: w, Claims: w,
		Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		err := w.store.Follow(ctx, 0, func(_ context.Context, events []eventstore.Recorded) error {
			for _, e := range events {
				w.fleet.Apply(e)
				w.reactor.Changed(e.Aggregate.ID)
			}
			return nil
		}, nil, subjects.KindFilter(subjects.Deployment))
		if err != nil {
			t.Errorf("following the log: %v", err)
		}
	})
	running.Go(func() {
		if err := w.reactor.Run(ctx); err != nil {
			t.Errorf("the reactor: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

func (w *world) record(id string, payload proto.Message) {
	w.t.Helper()
	w.append(id, payload)
	synctest.Wait()
}

// append records without waiting for what follows.
func (w *world) append(id string, payload proto.Message) {
	w.t.Helper()
	_, err := w.store.Record(context.Background(), eventstore.Event{Aggregate: subjects.Of("acme", subjects.Deployment, id),
		ID: fmt.Sprintf("%s-%T-%d", id, payload, time.Now().UnixNano()), Payload: payload, Time: time.Now(), Source: "test"})
	if err != nil {
		w.t.Fatalf("recording: %v", err)
	}
}

func (w *world) create(id string, memoryMB uint32) {
	w.t.Helper()
	w.record(id, requested(id, memoryMB))
}

func requested(id string, memoryMB uint32) *deploymentv1.DeploymentRequested {
	minute := durationpb.New(time.Minute)
	return &deploymentv1.DeploymentRequested{DeploymentId: id, OrgId: "acme", Tier: &deploymentv1.Tier{MemoryLimitMb: memoryMB, CpuLimitMillicores: 100},
		Release: &deploymentv1.Release{Id: "r-" + id, Number: 1, Port: 3000, ContainerName: id,
			Deadlines: &deploymentv1.Deadlines{Placement: durationpb.New(time.Hour), Start: minute, Healthy: minute, Stop: minute}}}
}

// events are the names of the deployment's events so far.
func (w *world) events(id string) []string {
	w.t.Helper()
	all, err := w.store.Load(context.Background(), subjects.Of("acme", subjects.Deployment, id), 0)
	if err != nil {
		w.t.Fatalf("loading: %v", err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Type())
	}
	return names
}

func (w *world) saw(id string, want ...string) {
	w.t.Helper()
	if got := w.events(id); !slices.Equal(got, want) {
		w.t.Fatalf("events of %s:\n%v\nwant\n%v", id, got, want)
	}
}

func (w *world) instance(id string) *deployment.Instance {
	w.t.Helper()
	s, _ := w.fleet.Get(id)
	for _, i := range s.Instances {
		return i
	}
	w.t.Fatalf("%s has no instance", id)
	return nil
}

var node = placement.Node{ID: "n1", MemoryMB: 1000, CPUMillicores: 1000}

func TestARequestIsPlacedAndRunsOnceBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, node)
		w.create("d1", 256)
		w.saw("d1", "DeploymentRequested", "DeploymentScheduled")
		i := w.instance("d1")
		w.record("d1", &deploymentv1.ContainerStarted{ReleaseId: i.ReleaseID, InstanceId: i.ID, Attempt: 1})
		w.record("d1", &deploymentv1.InstanceHealthy{ReleaseId: i.ReleaseID, InstanceId: i.ID, Attempt: 1})
		w.record("d1", &deploymentv1.RouteBound{ReleaseId: i.ReleaseID})
		w.saw("d1", "DeploymentRequested", "DeploymentScheduled", "ContainerStarted", "InstanceHealthy", "RouteBound", "DeploymentRunning")
		if got := w.views["d1"]; got.Status != deployment.Running {
			t.Fatalf("published as %s", got.Status)
		}
	})
}

func TestWhatFitsNowhereWaitsAndIsPlacedWhenRoomComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, node)
		w.create("big", 900)
		w.create("small", 256)
		w.saw("small", "DeploymentRequested", "PlacementDeferred")
		time.Sleep(time.Minute)
		synctest.Wait()
		w.saw("small", "DeploymentRequested", "PlacementDeferred")
		w.mu.Lock()
		w.nodes = append(w.nodes, placement.Node{ID: "n2", MemoryMB: 300, CPUMillicores: 1000})
		w.mu.Unlock()
		w.reactor.NodesChanged()
		synctest.Wait()
		w.saw("small", "DeploymentRequested", "PlacementDeferred", "DeploymentScheduled")
		if i := w.instance("small"); i.Node != "n2" {
			t.Fatalf("placed on %s", i.Node)
		}
	})
}

func TestNoRoomIsGivenAwayTwiceWhenManyComeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, node)
		const all, fit = 12, 3
		for n := range all {
			w.append(fmt.Sprintf("d%d", n), requested(fmt.Sprintf("d%d", n), 300))
		}
		synctest.Wait()
		placed := 0
		for n := range all {
			if slices.Contains(w.events(fmt.Sprintf("d%d", n)), "DeploymentScheduled") {
				placed++
			}
		}
		if placed != fit {
			t.Fatalf("%d deployments of 300 MB were placed on a node of 1000 MB, want %d", placed, fit)
		}
	})
}

func TestRoomThatADestroyMakesIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, node)
		w.create("big", 900)
		w.create("small", 256)
		i := w.instance("big")
		w.record("big", &deploymentv1.DestroyRequested{})
		w.saw("small", "DeploymentRequested", "PlacementDeferred")
		w.record("big", &deploymentv1.ContainerRemoved{ReleaseId: i.ReleaseID, InstanceId: i.ID})
		w.saw("big", "DeploymentRequested", "DeploymentScheduled", "DestroyRequested", "ContainerRemoved", "DeploymentDestroyed")
		w.saw("small", "DeploymentRequested", "PlacementDeferred", "DeploymentScheduled")
		if !slices.Equal(w.gone, []string{"big"}) {
			t.Fatalf("keys destroyed: %v", w.gone)
		}
	})
}

func TestEveryRolloutEndsByItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.create("homeless", 256)
		time.Sleep(time.Hour)
		synctest.Wait()
		w.saw("homeless", "DeploymentRequested", "PlacementDeferred", "ReleaseFailed")

		w.mu.Lock()
		w.nodes = []placement.Node{node}
		w.mu.Unlock()
		w.create("silent", 256)
		time.Sleep(time.Minute)
		synctest.Wait()
		w.saw("silent", "DeploymentRequested", "DeploymentScheduled", "ReleaseFailed")

		w.create("sick", 256)
		i := w.instance("sick")
		w.record("sick", &deploymentv1.ContainerStarted{ReleaseId: i.ReleaseID, InstanceId: i.ID, Attempt: 1})
		time.Sleep(time.Minute)
		synctest.Wait()
		w.saw("sick", "DeploymentRequested", "DeploymentScheduled", "ContainerStarted", "ReleaseFailed")
	})
}

func TestNothingIsDecidedBeforeTheViewsAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, node)
		w.mu.Lock()
		w.fail = fmt.Errorf("the bucket is away")
		w.mu.Unlock()
		w.create("d1", 256)
		w.saw("d1", "DeploymentRequested")
		w.mu.Lock()
		w.fail = nil
		w.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.saw("d1", "DeploymentRequested", "DeploymentScheduled")
	})
}
