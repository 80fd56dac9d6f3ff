package sim

import (
	"context"
	"slices"
	"time"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/services/scheduler"
)

// plant is a bug put in on purpose, to see that it is caught. A build tag
// plant_<name> chooses one; without any there is none.
type plant string

const (
	plantNone           plant = ""
	plantDropFact       plant = "drop_fact"        // one fact in five is acknowledged and not written
	plantSkipOCC        plant = "skip_occ"         // decisions are written whatever came before
	plantAckBeforeWrite plant = "ack_before_write" // decisions are acknowledged, then written, unless the scheduler crashes
	plantForgetClaim    plant = "forget_claim"     // a name is used without its claim
	plantKeepClaim      plant = "keep_claim"       // a name is given back without its claim
	plantRetireEarly    plant = "retire_early"     // the old instance drains as soon as there is a new one, before RouteBound
	plantEdgeAckEarly   plant = "edge_ack_early"   // an edge acknowledges what it has not applied
	plantKeepContainer  plant = "keep_container"   // a container is said to be removed and is not
	plantKeepView       plant = "keep_view"        // what is deleted from a view stays there
	plantKeepKey        plant = "keep_key"         // a data key outlives its deployment
	plantOverbook       plant = "overbook"         // nodes are believed to have twice their room
	plantForgetEvent    plant = "forget_event"     // the scheduler's fold leaves out an event now and then
	plantThinTakeover   plant = "thin_takeover"    // proxy-config is told of one instance of each release only
	plantLateDeadline   plant = "late_deadline"    // rollouts and stops have an hour
)

// plantBatch is what is written in place of a batch of decisions.
func plantBatch(s store, events []eventstore.Expected) []eventstore.Expected {
	var out []eventstore.Expected
	for _, e := range events {
		_, taken := e.Payload.(*claimv1.ClaimTaken)
		_, released := e.Payload.(*claimv1.ClaimReleased)
		switch {
		case planted == plantForgetClaim && taken, planted == plantKeepClaim && released:
			continue
		case planted == plantSkipOCC:
			e.LastSequence, _ = s.log.LastSequence(context.Background(), e.Aggregate.Filter())
		}
		out = append(out, e)
	}
	return out
}

func (s store) ackBeforeWrite(events []eventstore.Expected) (uint64, error) {
	last, err := s.log.LastSequence(context.Background(), subjects.AllEvents)
	if err != nil {
		return 0, err
	}
	s.p.w.after(2*tick, "", func() {
		if s.p.dead {
			return
		}
		if _, err := s.log.AppendBatch(context.Background(), events); err == nil {
			s.p.w.written()
		}
	})
	return last + uint64(len(events)), nil
}

// plantFollow is what a part is told in place of new events.
func plantFollow(p *proc, events []eventstore.Recorded) []eventstore.Recorded {
	if p.name == "proxy" && planted == plantThinTakeover {
		return thinned(events)
	}
	if p.name != "scheduler" || planted != plantForgetEvent {
		return events
	}
	var out []eventstore.Recorded
	for _, e := range events {
		if _, exited := e.Payload.(*deploymentv1.ContainerExited); exited && p.w.dice("forget", int(e.Sequence)).Float64() < .5 {
			continue
		}
		out = append(out, e)
	}
	return out
}

// thinned leaves out all but the first instance of what is placed.
func thinned(events []eventstore.Recorded) []eventstore.Recorded {
	out := slices.Clone(events)
	for n, e := range out {
		if placed, ok := e.Payload.(*deploymentv1.DeploymentScheduled); ok && len(placed.Placements) > 1 {
			out[n].Payload = &deploymentv1.DeploymentScheduled{ReleaseId: placed.ReleaseId, Placements: placed.Placements[:1]}
		}
	}
	return out
}

// plantRollout is what releases are told of their deadlines.
func plantRollout() scheduler.Rollout {
	c := rolloutConfig
	if planted == plantLateDeadline {
		c.HealthyTimeout, c.StopTimeout = time.Hour, time.Hour
	}
	return c
}

// plantDesired has the older instances of a deployment drain as soon as there is a
// younger one.
func plantDesired(b *bucket[*nodev1.DesiredInstance], young *nodev1.DesiredInstance) {
	if planted != plantRetireEarly || young.DesiredState != nodev1.DesiredState_DESIRED_STATE_RUNNING {
		return
	}
	for _, e := range b.all(">") {
		if old := e.Value; old.DeploymentId == young.DeploymentId && old.InstanceId < young.InstanceId {
			old.DesiredState = nodev1.DesiredState_DESIRED_STATE_DRAINING
			_, _ = b.write(e.Key, &old)
		}
	}
}

// desired is VIEW_desired as the scheduler reaches it.
type desired struct{ reach[*nodev1.DesiredInstance] }

func (d desired) Put(ctx context.Context, key string, value *nodev1.DesiredInstance) (uint64, error) {
	revision, err := d.reach.Put(ctx, key, value)
	if err == nil {
		plantDesired(d.b, value)
	}
	return revision, err
}
