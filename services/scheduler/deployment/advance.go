package deployment

import (
	"fmt"
	"slices"
	"time"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
)

// Step is what should happen next without anybody asking.
type Step struct {
	// Command is nil when there is nothing to do now.
	Command Command
	// NeedsPlacement is how many instances wait for nodes: all of the next release, or
	// some of the live one that is scaled up. The caller plans and sends Schedule or
	// Defer; of the live one as many as there is room for.
	NeedsPlacement int
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
		step = advanceLive(s, s.Live, move, now)
	}
	step.Move, step.Wake = move, earliest(step.Wake, wake)
	return step
}

func advanceLive(s State, r *Release, move *Move, now time.Time) Step {
	if ids := dueRetirement(s, r); len(ids) > 0 {
		return Step{Command: Retire{ReleaseID: r.Id, Instances: ids}}
	}
	if s.Scale != nil {
		step := advanceScale(s, now)
		if move != nil && step.NeedsPlacement > 0 {
			// What is there already comes first.
			step.NeedsPlacement = 0
		}
		if step.Command != nil || step.NeedsPlacement > 0 || r.DeferredFor == "" || move != nil {
			return step
		}
		return Step{Command: Defer{ReleaseID: r.Id}, Wake: step.Wake}
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
	lost := !r.ScheduledAt.IsZero() && s.anyLost(r, nodes)
	switch {
	case s.serves(r) && !lost:
		return Step{Command: MarkRunning{ReleaseID: r.Id}}
	case r.ScheduledAt.IsZero():
		deadline := r.RequestedAt.Add(d.GetPlacement().AsDuration())
		if now.Before(deadline) {
			return Step{NeedsPlacement: max(1, s.Count), Wake: deadline}
		}
		return fail(r, Failure{Code: CodePlacementTimeout, Reason: "No node had room in time. " + r.DeferredFor})
	}
	if f := doomed(s, r); f != nil {
		return fail(r, *f)
	}
	deadline, f := rolloutDeadline(s, r)
	deadline = earliest(deadline, r.latest())
	switch {
	case now.Before(deadline):
		return Step{Wake: deadline}
	case lost:
		return fail(r, nodeLost())
	}
	return fail(r, f)
}

// doomed is why an instance of the release can never get healthy; nil when all may.
func doomed(s State, r *Release) *Failure {
	for _, i := range s.staying(r) {
		if !i.Healthy && i.Failure != nil && i.Failure.Final {
			return i.Failure
		}
	}
	return nil
}

// rolloutDeadline is when the rollout fails, and why: each instance has its time to
// start, then to get healthy, and once all are, the edges have as long to say so.
func rolloutDeadline(s State, r *Release) (time.Time, Failure) {
	d := r.GetDeadlines()
	var first, last time.Time
	var unstarted bool
	for _, i := range s.staying(r) {
		due, waiting := i.PlacedAt.Add(d.GetStart().AsDuration()), i.FirstStartedAt.IsZero()
		if !waiting {
			due = i.FirstStartedAt.Add(d.GetHealthy().AsDuration())
		}
		if due.After(last) {
			last = due
		}
		if !i.Healthy && (first.IsZero() || due.Before(first)) {
			first, unstarted = due, waiting
		}
	}
	switch {
	case last.IsZero():
		// An event that placed nothing: it has the time of one that would start.
		return r.ScheduledAt.Add(d.GetStart().AsDuration()), Failure{Code: CodeStartTimeout, Reason: "Nothing was started."}
	case first.IsZero():
		return last, neverHealthy(s, r)
	case unstarted:
		return first, orElse(r.Failure, Failure{Code: CodeStartTimeout,
			Reason: fmt.Sprintf("The container was not started within %s: its node does not answer, or the pull takes too long.", d.GetStart().AsDuration())})
	}
	return first, neverHealthy(s, r)
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
	if s.allHealthy(r) {
		return Failure{Code: CodeHealthTimeout, Reason: "The app is healthy, but no edge acknowledged its route in time."}
	}
	within := r.GetDeadlines().GetHealthy().AsDuration()
	f := Failure{Code: CodeHealthTimeout, Reason: fmt.Sprintf(
		"The app did not become healthy within %s: nothing answered GET %s with a status below 500 on port %d. Does it listen on 0.0.0.0 and the port in $PORT?",
		within, healthPath(r.Release), r.GetPort())}
	if all := s.staying(r); len(all) > 1 {
		sick := slices.DeleteFunc(all, func(i *Instance) bool { return i.Healthy })
		f.Reason = fmt.Sprintf("%d of %s: %s", len(sick), instances(s.Count), f.Reason)
	}
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
