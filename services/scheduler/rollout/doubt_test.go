package rollout_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

// mute is a log that writes the first batch and does not say so.
type mute struct {
	*memory.Store
	once sync.Once
}

func (m *mute) AppendBatch(ctx context.Context, events []eventstore.Expected) (uint64, error) {
	sequence, err := m.Store.AppendBatch(ctx, events)
	m.once.Do(func() { sequence, err = 0, eventstore.ErrUnavailable })
	return sequence, err
}

func TestAPlacementThatWasNotAnsweredKeepsItsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &mute{Store: memory.New()}
		w := &world{t: t, store: store.Store, fleet: fleet.New(), nodes: []placement.Node{node}, views: map[string]deployment.State{}}
		w.reactor = rollout.New(rollout.Deps{Store: store, Fleet: w.fleet, Nodes: w, Views: w, Keys: w, Claims: w,
			Now: time.Now, Log: slog.New(slog.DiscardHandler)})
		hour := durationpb.New(time.Hour)
		for _, id := range []string{"a", "b"} {
			asked := eventstore.Event{Aggregate: subjects.Of("acme", subjects.Deployment, id), ID: id, Time: time.Now(), Payload: &deploymentv1.DeploymentRequested{
				DeploymentId: id, OrgId: "acme", Tier: &deploymentv1.Tier{MemoryLimitMb: 600},
				Release: &deploymentv1.Release{Id: "r-" + id, Deadlines: &deploymentv1.Deadlines{Placement: hour, Start: hour, Healthy: hour, Stop: hour}}}}
			sequence, err := store.Record(t.Context(), asked)
			if err != nil {
				t.Fatal(err)
			}
			w.fleet.Apply(eventstore.Recorded{Event: asked, Sequence: sequence})
		}
		w.reactor.Changed("a", "b")
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = w.reactor.Run(ctx) })
		// The log has not told the first placement back when the second is planned.
		synctest.Wait()
		time.Sleep(5 * time.Second)
		cancel()
		running.Wait()
		scheduled := 0
		for _, id := range []string{"a", "b"} {
			if slices.Contains(w.events(id), "DeploymentScheduled") {
				scheduled++
			}
		}
		if scheduled != 1 {
			t.Errorf("%d deployments got the room of one; a: %v, b: %v", scheduled, w.events("a"), w.events("b"))
		}
	})
}
