package rollout_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
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
	// troubled are nodes that are lost or being drained.
	troubled deployment.Nodes
	views    map[string]deployment.State
	gone     []string
	fail     error
}

func (w *world) Live() []placement.Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.nodes)
}

func (w *world) Troubled() deployment.Nodes {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.troubled)
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
	time.Sleep(time.Millisecond) // facts have their time in their ids
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
		w.record("d1", &deploymentv1.RouteBound{ReleaseId: i.ReleaseID, InstanceIds: []string{i.ID}})
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

func (w *world) trouble(node string, trouble deployment.Trouble) {
	w.t.Helper()
	w.mu.Lock()
	w.troubled = deployment.Nodes{node: trouble}
	for i := range w.nodes {
		w.nodes[i].Unschedulable = w.nodes[i].ID == node
	}
	w.mu.Unlock()
	w.reactor.NodesChanged(node)
	synctest.Wait()
}

// runs makes a placed deployment live.
func (w *world) runs(id string) *deployment.Instance {
	w.t.Helper()
	i := w.instance(id)
	w.record(id, &deploymentv1.ContainerStarted{ReleaseId: i.ReleaseID, InstanceId: i.ID, Attempt: 1})
	w.record(id, &deploymentv1.InstanceHealthy{ReleaseId: i.ReleaseID, InstanceId: i.ID, Attempt: 1})
	w.record(id, &deploymentv1.RouteBound{ReleaseId: i.ReleaseID, InstanceIds: []string{i.ID}})
	return i
}

func (w *world) last(id string) string {
	w.t.Helper()
	all := w.events(id)
	return all[len(all)-1]
}

func TestManyThatMoveAtOnceShareTheRoomThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, placement.Node{ID: "n1", MemoryMB: 10_000, CPUMillicores: 10_000})
		ids := []string{"a", "b", "c", "d", "e"}
		for _, id := range ids {
			w.create(id, 256)
			w.runs(id)
		}
		w.mu.Lock()
		w.nodes = append(w.nodes, placement.Node{ID: "n2", MemoryMB: 600, CPUMillicores: 1000}, placement.Node{ID: "n3", MemoryMB: 300, CPUMillicores: 1000})
		w.mu.Unlock()
		w.trouble("n1", deployment.NodeLost)
		moved := map[string]int{}
		for _, id := range ids {
			s, _ := w.fleet.Get(id)
			for _, i := range s.Instances {
				moved[i.Node]++
			}
		}
		if moved["n2"] != 2 || moved["n3"] != 1 || w.reactor.Waiting() != 2 {
			t.Fatalf("instances on nodes: %v, waiting: %d", moved, w.reactor.Waiting())
		}
		waiting := 0
		for _, id := range ids {
			if w.last(id) == "PlacementDeferred" {
				waiting++
			}
		}
		if waiting != 2 {
			t.Fatalf("%d say that they wait", waiting)
		}
		// It returns: those that could not move are there still, and wait no more.
		w.trouble("none", deployment.NodeLost)
		w.reactor.NodesChanged("n1")
		synctest.Wait()
		if w.reactor.Waiting() != 0 {
			t.Fatalf("%d go on waiting", w.reactor.Waiting())
		}
	})
}

func TestADrainEndsWhenTheEdgesHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, node)
		w.create("d1", 256)
		old := w.runs("d1")
		w.trouble("n1", deployment.NodeDraining)
		if w.last("d1") != "PlacementDeferred" {
			t.Fatalf("%v", w.events("d1"))
		}
		w.mu.Lock()
		w.nodes = append(w.nodes, placement.Node{ID: "n2", MemoryMB: 300, CPUMillicores: 1000})
		w.mu.Unlock()
		w.reactor.NodesChanged()
		synctest.Wait()
		if w.last("d1") != "InstancesRescheduled" {
			t.Fatalf("%v", w.events("d1"))
		}
		s, _ := w.fleet.Get("d1")
		for _, i := range s.Instances {
			if i.ID == old.ID {
				continue
			}
			w.record("d1", &deploymentv1.ContainerStarted{ReleaseId: i.ReleaseID, InstanceId: i.ID, Attempt: 1})
			w.record("d1", &deploymentv1.InstanceHealthy{ReleaseId: i.ReleaseID, InstanceId: i.ID, Attempt: 1})
			if w.last("d1") != "InstanceHealthy" {
				t.Fatalf("%v", w.events("d1"))
			}
			w.record("d1", &deploymentv1.RouteBound{ReleaseId: i.ReleaseID, InstanceIds: []string{i.ID}})
		}
		if w.last("d1") != "InstancesRetired" {
			t.Fatalf("%v", w.events("d1"))
		}
	})
}

func TestARolloutEndsInTimeThoughTheLiveReleaseCannotMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, node)
		w.create("d1", 900)
		w.runs("d1")
		w.trouble("n1", deployment.NodeLost)
		s, _ := w.fleet.Get("d1")
		next := proto.CloneOf(s.Latest)
		next.Id, next.Number = "r2", 2
		w.record("d1", &deploymentv1.RestartRequested{Release: next})
		time.Sleep(time.Hour)
		synctest.Wait()
		if !slices.Contains(w.events("d1"), "ReleaseFailed") {
			t.Fatalf("%v", w.events("d1"))
		}
	})
}
