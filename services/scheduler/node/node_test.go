package node_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/scheduler/node"
)

var (
	join   = node.Join{ID: "n1", MemoryMB: 1024, CPUMillicores: 2000}
	joined = &nodev1.NodeJoined{NodeId: "n1", MemoryMb: 1024, CpuMillicores: 2000}
	lost   = &nodev1.NodeLost{NodeId: "n1", Reason: "No heartbeat for 20s."}
)

func story(t *testing.T, events ...proto.Message) *gwt.Story[node.State, node.Command] {
	t.Helper()
	return gwt.New(t, node.Decider()).Given(events...)
}

func (w want) of(t *testing.T, s *gwt.Story[node.State, node.Command]) {
	t.Helper()
	if got := s.State().Status(); got != node.Status(w) {
		t.Errorf("it is %s, want %s", got, w)
	}
}

type want node.Status

func TestANodeIsLostOnceAndReturns(t *testing.T) {
	t.Parallel()
	s := story(t).When(join).Then(joined).When(join).ThenNothing()
	want(node.Ready).of(t, s)
	s.When(node.Lose{Silence: 20 * time.Second}).Then(lost).When(node.Lose{}).ThenNothing()
	want(node.Lost).of(t, s)
	want(node.Ready).of(t, s.When(join).Then(joined))
}

func TestANodeThatIsDrainedStaysSoUntilItIsUncordoned(t *testing.T) {
	t.Parallel()
	s := story(t, joined).When(node.Drain{By: "ops"}).Then(&nodev1.NodeCordoned{NodeId: "n1", Drain: true, InitiatedBy: "ops"}).
		When(node.Drain{By: "ops"}).ThenNothing()
	want(node.Draining).of(t, s)
	s.Given(lost)
	want(node.Lost).of(t, s)
	s.Given(joined)
	want(node.Draining).of(t, s)
	s.When(node.Uncordon{By: "ops"}).Then(&nodev1.NodeUncordoned{NodeId: "n1", InitiatedBy: "ops"}).
		When(node.Uncordon{}).ThenNothing()
	want(node.Ready).of(t, s)
}

func TestACordonWithoutADrainCanBecomeOne(t *testing.T) {
	t.Parallel()
	s := story(t, joined, &nodev1.NodeCordoned{NodeId: "n1"})
	want(node.Cordoned).of(t, s)
	want(node.Draining).of(t, s.When(node.Drain{}).Then(&nodev1.NodeCordoned{NodeId: "n1", Drain: true}))
}

func TestANodeThatNeverJoinedIsNotFound(t *testing.T) {
	t.Parallel()
	s := story(t)
	s.When(node.Drain{}).ThenError(problem.CodeNotFound)
	s.When(node.Uncordon{}).ThenError(problem.CodeNotFound)
	s.When(node.Lose{}).ThenNothing()
}

func TestEveryEventOfTheSchemaHasAFold(t *testing.T) {
	t.Parallel()
	samples := map[string]proto.Message{"NodeJoined": joined, "NodeLost": lost,
		"NodeCordoned": &nodev1.NodeCordoned{NodeId: "n1"}, "NodeUncordoned": &nodev1.NodeUncordoned{NodeId: "n1"}}
	messages := nodev1.File_slipway_node_v1_events_proto.Messages()
	for i := range messages.Len() {
		name := string(messages.Get(i).Name())
		sample, changes := samples[name], false
		for _, before := range []node.State{{}, {ID: "n1"}, {ID: "n1", Cordoned: true}} {
			changes = changes || sample != nil && node.Evolve(before, eventstore.Recorded{Event: eventstore.Event{Payload: sample}}) != before
		}
		if !changes {
			t.Errorf("%s changes no state in any story: give it a fold", name)
		}
	}
}
