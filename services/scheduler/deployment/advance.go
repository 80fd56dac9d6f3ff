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
	// Wake is when time alone makes a difference; zero for never.
	Wake time.Time
}

// Advance looks at the state and says what is due. It is level-triggered: the
// same state always gives the same step, so nothing is lost when a step was not
// carried out, and carrying it out twice is refused by Decide. The deadlines are
// in the state too, so there is no timer to lose.
func Advance(s State, now time.Time) Step {
	switch {
	case !s.Exists():
		return Step{}
	case s.Intent != IntentNone:
		return advanceIntent(s, now)
	case s.Next != nil:
		return advanceRollout(s, s.Next, now)
	}
	return Step{}
}

func advanceIntent(s State, now time.Time) Step {
	done := len(s.Instances) == 0 && !s.Routed
	deadline := s.IntentAt.Add(s.Latest.Deadlines.Stop.AsDuration())
	reason := ""
	if !done {
		if now.Before(deadline) {
			return Step{Wake: deadline}
		}
		reason = "Its node or the edge did not answer in time; what is left is removed when they do."
	}
	if s.Intent == IntentDestroy {
		return Step{Command: MarkDestroyed{Reason: reason}}
	}
	return Step{Command: MarkStopped{Reason: reason}}
}

func advanceRollout(s State, r *Release, now time.Time) Step {
	d := r.Deadlines
	switch {
	case r.Bound:
		return Step{Command: MarkRunning{ReleaseID: r.Id}}
	case r.ScheduledAt.IsZero():
		deadline := r.RequestedAt.Add(d.Placement.AsDuration())
		if now.Before(deadline) {
			return Step{NeedsPlacement: true, Wake: deadline}
		}
		return fail(r, Failure{Code: CodePlacementTimeout, Reason: "No node had room in time. " + r.DeferredFor})
	case r.Failure != nil && r.Failure.Final && !s.anyHealthy(r):
		return fail(r, *r.Failure)
	case r.FirstStartedAt.IsZero():
		deadline := r.ScheduledAt.Add(d.Start.AsDuration())
		if now.Before(deadline) {
			return Step{Wake: deadline}
		}
		return fail(r, orElse(r.Failure, Failure{Code: CodeStartTimeout,
			Reason: fmt.Sprintf("The container was not started within %s: its node does not answer, or the pull takes too long.", d.Start.AsDuration())}))
	default:
		deadline := r.FirstStartedAt.Add(d.Healthy.AsDuration())
		if now.Before(deadline) {
			return Step{Wake: deadline}
		}
		return fail(r, neverHealthy(s, r))
	}
}

func fail(r *Release, f Failure) Step {
	return Step{Command: FailRelease{ReleaseID: r.Id, Failure: f}}
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
	within := r.Deadlines.Healthy.AsDuration()
	f := Failure{Code: CodeHealthTimeout, Reason: fmt.Sprintf(
		"The app did not become healthy within %s: nothing answered GET %s with a status below 500 on port %d. Does it listen on 0.0.0.0 and the port in $PORT?",
		within, healthPath(r.Release), r.Port)}
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
