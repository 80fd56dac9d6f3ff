package deployment

import (
	"fmt"
	"time"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
)

// Step is what should happen next without anybody asking.
type Step struct {
	// Command is nil when there is nothing to do now.
	Command Command
	// NeedsPlacement is true when the next release waits for nodes: the caller
	// plans and sends Schedule or Defer.
	NeedsPlacement bool
	// Move is set when instances need another node: the caller plans and sends
	// Reschedule, which goes before the rest of the step; while there is no room, the
	// rest of the step, or else Defer.
	Move *Move
	// Wake is when time alone makes a difference; zero for never.
	Wake time.Time
}

// Advance looks at the state, and at which nodes are in trouble, and says what is
// due. It is level-triggered: the same state always gives the same step, so nothing
// is lost when a step was not carried out, and carrying it out twice is refused by
// Decide. The deadlines are in the state too, so there is no timer to lose.
func Advance(s State, nodes Nodes, now time.Time) Step {
	if !s.Exists() {
		return Step{}
	}
	if s.Intent != IntentNone {
		return advanceIntent(s, nodes, now)
	}
	move, wake := dueMove(s, nodes, now)
	var step Step
	switch {
	case s.Next != nil:
		step = advanceRollout(s, s.Next, nodes, now)
	case s.Live != nil:
		step = advanceLive(s, s.Live, move)
	}
	step.Move, step.Wake = move, earliest(step.Wake, wake)
	return step
}

func advanceLive(s State, r *Release, move *Move) Step {
	if ids := dueRetirement(s, r); len(ids) > 0 {
		return Step{Command: Retire{ReleaseID: r.Id, Instances: ids}}
	}
	if move == nil && r.DeferredFor != "" {
		return Step{Command: Defer{ReleaseID: r.Id}}
	}
	return Step{}
}

func advanceIntent(s State, nodes Nodes, now time.Time) Step {
	left, lost := 0, 0
	for _, i := range s.Instances {
		left++
		if nodes[i.Node] == NodeLost {
			lost++
		}
	}
	reason := ""
	switch deadline := s.IntentAt.Add(s.Latest.GetDeadlines().GetStop().AsDuration()); {
	case left == 0 && !s.Routed:
	case left == lost && !s.Routed:
		reason = "Its node is lost; what is left there is removed when it returns."
	case now.Before(deadline):
		return Step{Wake: deadline}
	default:
		reason = "Its node or the edge did not answer in time; what is left is removed when they do."
	}
	if s.Intent == IntentDestroy {
		return Step{Command: MarkDestroyed{Reason: reason}}
	}
	return Step{Command: MarkStopped{Reason: reason}}
}

func advanceRollout(s State, r *Release, nodes Nodes, now time.Time) Step {
	d := r.GetDeadlines()
	lost := !r.ScheduledAt.IsZero() && s.allLost(r, nodes)
	switch {
	case s.serves(r) && !lost:
		return Step{Command: MarkRunning{ReleaseID: r.Id}}
	case r.ScheduledAt.IsZero():
		deadline := r.RequestedAt.Add(d.GetPlacement().AsDuration())
		if now.Before(deadline) {
			return Step{NeedsPlacement: true, Wake: deadline}
		}
		return fail(r, Failure{Code: CodePlacementTimeout, Reason: "No node had room in time. " + r.DeferredFor})
	case r.Failure != nil && r.Failure.Final && !s.anyHealthy(r):
		return fail(r, *r.Failure)
	case r.FirstStartedAt.IsZero():
		deadline := earliest(r.ScheduledAt.Add(d.GetStart().AsDuration()), r.latest())
		switch {
		case now.Before(deadline):
			return Step{Wake: deadline}
		case lost:
			return fail(r, nodeLost())
		}
		return fail(r, orElse(r.Failure, Failure{Code: CodeStartTimeout,
			Reason: fmt.Sprintf("The container was not started within %s: its node does not answer, or the pull takes too long.", d.GetStart().AsDuration())}))
	default:
		deadline := earliest(r.FirstStartedAt.Add(d.GetHealthy().AsDuration()), r.latest())
		switch {
		case now.Before(deadline):
			return Step{Wake: deadline}
		case lost:
			return fail(r, nodeLost())
		}
		return fail(r, neverHealthy(s, r))
	}
}

func nodeLost() Failure {
	return Failure{Code: CodeStartTimeout, Reason: "Its node was lost, and no other had room in time."}
}

func fail(r *Release, f Failure) Step {
	return Step{Command: FailRelease{ReleaseID: r.GetId(), Failure: f}}
}

func orElse(f *Failure, otherwise Failure) Failure {
	if f != nil {
		return *f
	}
	return otherwise
}

// neverHealthy says why a started release did not go live.
func neverHealthy(s State, r *Release) Failure {
	if s.anyHealthy(r) {
		return Failure{Code: CodeHealthTimeout, Reason: "The app is healthy, but no edge acknowledged its route in time."}
	}
	within := r.GetDeadlines().GetHealthy().AsDuration()
	f := Failure{Code: CodeHealthTimeout, Reason: fmt.Sprintf(
		"The app did not become healthy within %s: nothing answered GET %s with a status below 500 on port %d. Does it listen on 0.0.0.0 and the port in $PORT?",
		within, healthPath(r.Release), r.GetPort())}
	if r.Failure != nil {
		if r.Failure.Code == CodeCrashed {
			return *r.Failure
		}
		f.Reason += " " + r.Failure.Reason
		f.LastLines = r.Failure.LastLines
	}
	return f
}

func healthPath(r *deploymentv1.Release) string {
	if p := r.GetHealthCheck().GetPath(); p != "" {
		return p
	}
	return "/"
}
