package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/scheduler/node"
	"github.com/slipway-paas/slipway/services/scheduler/roster"
)

const (
	cachedNodes = 1024
	// looks is how often silence is looked at within the time that makes a node lost.
	looks = 40
)

type nodeHandler = decider.Handler[node.State, node.Command]

func newNodeHandler(store eventstore.Store, now func() time.Time) *nodeHandler {
	return decider.NewHandler(store, node.Decider(), decider.Options[node.State]{
		Source: "scheduler", Now: now, CacheSize: cachedNodes,
		NewID: func() string { return uuid.Must(uuid.NewV7()).String() },
	})
}

// Heartbeats are what nodes say of themselves; *view.View is one.
type Heartbeats interface {
	Watch(ctx context.Context, filter string, handle func(context.Context, view.Change[*nodev1.Node]) error, ready func()) error
	Get(ctx context.Context, key string) (view.Entry[*nodev1.Node], bool, error)
}

// watchNodes hears the heartbeats until ctx ends.
func (s *Service) watchNodes(ctx context.Context, beats Heartbeats) error {
	return beats.Watch(ctx, ">", func(_ context.Context, c view.Change[*nodev1.Node]) error {
		// An expired heartbeat says no more than its absence.
		if !c.Deleted && subjects.ValidToken(c.Key) {
			s.heard(c.Entry)
		}
		return nil
	}, nil)
}

// heard takes in a heartbeat, whoever came upon it, and has those looked at that
// wait for room.
func (s *Service) heard(beat view.Entry[*nodev1.Node]) {
	if s.roster.Heard(beat.Key, beat.Value, beat.Revision) {
		s.reactor.NodesChanged()
		s.lookAtNodes()
	}
}

func (s *Service) lookAtNodes() {
	select {
	case s.nodesKick <- struct{}{}:
	default:
	}
}

// decideNodes says in the log which nodes joined and which are lost, until ctx ends.
// It is to be started once the roster is folded up to the end of the log: from then
// on a node that stays silent counts as silent.
func (s *Service) decideNodes(ctx context.Context, beats Heartbeats) error {
	every := s.config.NodeLossAfter / looks
	tick := time.NewTicker(every)
	defer tick.Stop()
	s.roster.ListenAgain()
	last := s.deps.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.nodesKick:
		case <-tick.C:
		}
		now := s.deps.Now()
		if now.Sub(last) > s.config.NodeLossAfter/2 || !s.canHear(ctx, beats) {
			// It was we who heard nothing.
			s.roster.ListenAgain()
		}
		last = now
		for _, due := range s.roster.Due() {
			if err := s.decideNode(ctx, beats, due); err != nil && ctx.Err() == nil {
				s.deps.Log.WarnContext(ctx, "what became of a node could not be recorded; trying again", "node", due.ID, "error", err)
			}
		}
	}
}

// canHear asks, when a node is quiet, for its heartbeat: when not even that is
// answered, the silence is not the node's.
func (s *Service) canHear(ctx context.Context, beats Heartbeats) bool {
	if s.deps.NATS != nil && s.deps.NATS.Status() != nats.CONNECTED {
		return false
	}
	quiet := s.roster.Quiet()
	if len(quiet) == 0 {
		return true
	}
	_, _, err := beats.Get(ctx, quiet[0])
	if err != nil && s.deps.JetStream != nil {
		if repairErr := s.restoreHeartbeats(ctx); repairErr != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "heartbeats cannot be heard", "error", errors.Join(err, repairErr))
		}
	}
	return err == nil
}

// restoreHeartbeats makes the bucket anew when it is gone: it is in memory, and ends
// with a NATS server that is alone.
func (s *Service) restoreHeartbeats(ctx context.Context) error {
	_, err := s.deps.JetStream.KeyValue(ctx, subjects.BucketNodes)
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return err
	}
	events, err := s.deps.JetStream.Stream(ctx, subjects.StreamEvents)
	if err != nil {
		return fmt.Errorf("looking at %s: %w", subjects.StreamEvents, err)
	}
	if err := natsconn.Provision(ctx, s.deps.JetStream, events.CachedInfo().Config.Replicas); err != nil {
		return err
	}
	s.deps.Log.InfoContext(ctx, "made anew what NATS had kept in memory")
	return nil
}

func (s *Service) decideNode(ctx context.Context, beats Heartbeats, due roster.Due) error {
	if _, lost := due.Command.(node.Lose); lost {
		entry, found, err := beats.Get(ctx, due.ID)
		if err != nil {
			s.roster.ListenAgain()
			return fmt.Errorf("asking once more for its heartbeat: %w", err)
		}
		if found && entry.Revision > due.Revision {
			s.heard(entry)
			return nil
		}
	}
	result, err := s.nodeHandler.Handle(ctx, decider.Command[node.Command]{
		Aggregate: subjects.Of(subjects.Platform, subjects.Node, due.ID), Command: due.Command})
	if err != nil {
		return err
	}
	if result.Event != nil {
		s.deps.Log.InfoContext(ctx, "a node changed", "node", due.ID, "event", result.Event.Type(), "status", string(result.State.Status()))
	}
	return nil
}

// foldNode takes a node's event in.
func (s *Service) foldNode(rec eventstore.Recorded) {
	s.roster.Apply(rec)
	s.reactor.NodesChanged(rec.Aggregate.ID)
}
