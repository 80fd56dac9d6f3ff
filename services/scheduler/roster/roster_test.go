package roster_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/node"
	"github.com/slipway-paas/slipway/services/scheduler/roster"
)

const lossAfter = 20 * time.Second

// world is a roster under a clock that the test moves.
type world struct {
	*roster.Roster
	t        *testing.T
	now      time.Time
	revision uint64
}

func start(t *testing.T) *world {
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.Roster = roster.New(lossAfter, func() time.Time { return w.now })
	return w
}

func (w *world) beats(id string) bool {
	w.revision++
	return w.Heard(id, &nodev1.Node{NodeId: id, MemoryMb: 1000, CpuMillicores: 1000}, w.revision)
}

// passes lets time go by; those named go on beating every two seconds.
func (w *world) passes(d time.Duration, beating ...string) {
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(time.Second) {
		for _, id := range beating {
			w.beats(id)
		}
	}
}

func (w *world) happens(id string, e proto.Message) {
	w.Apply(eventstore.Recorded{Event: eventstore.Event{Aggregate: subjects.Of(subjects.Platform, subjects.Node, id), Payload: e}})
}

// decided carries out what is due, and wants it to be that: "n1 joined", "n1 lost".
func (w *world) decided(want ...string) {
	w.t.Helper()
	var got []string
	for _, d := range w.Due() {
		report, _ := w.Get(d.ID)
		e, err := node.Decide(report.State, d.Command, w.now)
		if err != nil || e == nil {
			w.t.Fatalf("%T of %s is due, and refused: %v", d.Command, d.ID, err)
		}
		word := " joined"
		if _, lost := e.(*nodev1.NodeLost); lost {
			word = " lost"
		}
		got = append(got, d.ID+word)
		w.happens(d.ID, e)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("decided %q, want %q", got, want)
	}
	if again := w.Due(); len(again) > 0 {
		w.t.Errorf("due though it is decided: %v", again)
	}
}

// takes wants these nodes to take instances.
func (w *world) takes(want ...string) {
	w.t.Helper()
	var got []string
	for _, n := range w.Live() {
		if !n.Unschedulable {
			got = append(got, n.ID)
		}
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("%q take instances, want %q", got, want)
	}
}

func TestASilentNodeIsSparedThenLostAndJoinsAgain(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.beats("n1")
	w.beats("n2")
	w.decided("n1 joined", "n2 joined")
	w.takes("n1", "n2")
	w.passes(lossAfter/2, "n2")
	w.decided()
	w.takes("n2")
	w.passes(lossAfter/2, "n2")
	w.decided("n1 lost")
	if got := w.Troubled(); len(got) != 1 || got["n1"] != deployment.NodeLost {
		t.Errorf("in trouble are %v", got)
	}
	if !w.beats("n1") {
		t.Error("room came back, unsaid")
	}
	w.takes("n2")
	w.decided("n1 joined")
	w.takes("n1", "n2")
	if w.beats("n1") {
		t.Error("every heartbeat is taken for news")
	}
}

func TestANodeThatWasNeverHeardInThisRunHasAWholePeriod(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.happens("n1", &nodev1.NodeJoined{NodeId: "n1"})
	w.passes(time.Minute)
	// The log took that long to read.
	w.ListenAgain()
	w.decided()
	w.passes(lossAfter - time.Second)
	w.decided()
	w.passes(time.Second)
	w.decided("n1 lost")
}

func TestSilenceThatWasOursIsForgiven(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.beats("n1")
	w.decided("n1 joined")
	w.passes(time.Hour)
	w.ListenAgain()
	w.decided()
	w.takes()
	w.passes(lossAfter - 2*time.Second)
	w.beats("n1")
	w.passes(2 * time.Second)
	w.decided()
	w.takes("n1")
}

func TestACordonedNodeTakesNothingAndOneThatDrainsIsInTrouble(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.beats("n1")
	w.decided("n1 joined")
	w.happens("n1", &nodev1.NodeCordoned{NodeId: "n1"})
	w.takes()
	if got := w.Troubled(); len(got) != 0 {
		t.Errorf("a cordoned node is in trouble: %v", got)
	}
	w.happens("n1", &nodev1.NodeCordoned{NodeId: "n1", Drain: true})
	if got := w.Troubled(); got["n1"] != deployment.NodeDraining {
		t.Errorf("in trouble are %v", got)
	}
	w.happens("n1", &nodev1.NodeUncordoned{NodeId: "n1"})
	w.takes("n1")
}

func TestAHeartbeatThatNamesAnotherNodeIsNone(t *testing.T) {
	t.Parallel()
	w := start(t)
	for _, beat := range []*nodev1.Node{{Host: "there is no such instance"}, {NodeId: "n2", MemoryMb: 1000, CpuMillicores: 1000}} {
		if w.Heard("n1", beat, 1) {
			t.Errorf("n1 is said to live by %v", beat)
		}
	}
}
