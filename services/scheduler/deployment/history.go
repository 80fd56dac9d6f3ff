package deployment

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// MaxHistory is how many releases are remembered, and can be rolled back to.
const MaxHistory = 50

// PastRelease is what is remembered of a release: all that rolling back to it needs.
type PastRelease struct {
	ID     string
	Number uint32
	Image  string
	Port   uint32
	// Env is shared with the release before when it is the same.
	Env *deploymentv1.SealedEnv
	// Config numbers the environments that there were.
	Config uint32
	Digest string
	At     time.Time
	By     string
	// From is the number of the release that was rolled back to; 0 for none.
	From uint32
	// Ran is true once it has served, Failed once its rollout has failed.
	Ran, Failed bool
}

func decideRollback(s State, c Rollback) (proto.Message, error) {
	refuse := func(why string) (proto.Message, error) { return nil, problem.InvalidState("Rollback failed: " + why) }
	switch {
	case s.Status == Destroyed || s.Intent == IntentDestroy:
		return refuse("the deployment is destroyed. Create a new one.")
	case s.Intent == IntentStop:
		return refuse("the deployment is being stopped. Roll it back once its status is stopped.")
	case s.Next != nil:
		return refuse("a rollout is under way. Wait until it is running, or stop the deployment to cancel it.")
	case s.Scale != nil:
		return refuse("it is being scaled. Wait until that has ended, or scale back to cancel it.")
	}
	old, why := s.rollbackTarget(c.Number)
	if why != "" {
		return refuse(why)
	}
	next := proto.CloneOf(s.Latest)
	next.Id, next.Number, next.ContainerName = c.ReleaseID, s.Latest.GetNumber()+1, c.ContainerName
	next.Image, next.Port, next.Digest = old.Image, old.Port, old.Digest
	next.Env = proto.CloneOf(old.Env)
	return &deploymentv1.RollbackRequested{Release: next, FromReleaseNumber: old.Number, InitiatedBy: c.By}, nil
}

// rollbackTarget is the release of that number, 0 being the last that ran before the
// one that serves, or before the last that served; or why there is none.
func (s State) rollbackTarget(number int64) (PastRelease, string) {
	last := uint32(0)
	for _, r := range s.History {
		if r.Ran {
			last = r.Number
		}
	}
	if number == 0 {
		for _, r := range slices.Backward(s.History) {
			if r.Ran && r.Number < last {
				return r, ""
			}
		}
		return PastRelease{}, "no release ran before this one."
	}
	n := slices.IndexFunc(s.History, func(r PastRelease) bool { return int64(r.Number) == number })
	switch {
	case n < 0:
		return PastRelease{}, fmt.Sprintf("there is no release %d among the last %d. List the releases to see which there are.", number, MaxHistory)
	case !s.History[n].Ran:
		return PastRelease{}, fmt.Sprintf("release %d never ran.", number)
	case s.Live != nil && s.Live.Id == s.History[n].ID:
		return PastRelease{}, fmt.Sprintf("release %d is the one that runs. Restart the deployment to start it anew.", number)
	}
	return s.History[n], ""
}

// remember adds a release to the history. What is in it is never changed in place, so
// that older states stay what they were.
func (s *State) remember(r *deploymentv1.Release, at time.Time, by string, from uint32) {
	past := PastRelease{ID: r.GetId(), Number: r.GetNumber(), Image: r.GetImage(), Port: r.GetPort(), Env: r.GetEnv(),
		Digest: r.GetDigest(), At: at, By: by, From: from, Config: 1}
	known := false
	for _, old := range s.History {
		if bytes.Equal(old.Env.GetCiphertext(), past.Env.GetCiphertext()) {
			past.Config, past.Env, known = old.Config, old.Env, true
		} else if !known {
			past.Config = max(past.Config, old.Config+1)
		}
	}
	s.History = append(slices.Clone(s.History), past)
	if len(s.History) <= MaxHistory {
		return
	}
	oldest := slices.IndexFunc(s.History, func(r PastRelease) bool { return s.Live == nil || r.ID != s.Live.Id })
	s.History = slices.Delete(s.History, oldest, oldest+1)
}

// rewrite changes what is remembered of a release.
func (s *State) rewrite(id string, change func(*PastRelease)) {
	n := slices.IndexFunc(s.History, func(r PastRelease) bool { return r.ID == id })
	if n < 0 {
		return
	}
	s.History = slices.Clone(s.History)
	change(&s.History[n])
}

// base is the release that a restart starts from: the last that served, else the newest.
func (s State) base() *deploymentv1.Release {
	if s.Good != nil {
		return s.Good
	}
	return s.Latest
}

// Releases is the history as readers see it, newest first.
func Releases(s State) []*schedulerv1.Release {
	out := make([]*schedulerv1.Release, 0, len(s.History))
	for _, r := range slices.Backward(s.History) {
		out = append(out, &schedulerv1.Release{Id: r.ID, Number: r.Number, Image: r.Image, Digest: r.Digest,
			ConfigNumber: r.Config, Status: s.statusOf(r), CreatedAt: timestamppb.New(r.At), CreatedBy: r.By, RolledBackTo: r.From})
	}
	return out
}

func (s State) statusOf(r PastRelease) string {
	switch {
	case s.Next != nil && s.Next.Id == r.ID && s.Intent == IntentNone:
		if s.Next.ScheduledAt.IsZero() {
			return "pending"
		}
		return "deploying"
	case s.Live != nil && s.Live.Id == r.ID:
		return "active"
	case r.Ran && s.Live == nil && s.Good.GetId() == r.ID:
		return "stopped"
	case r.Ran:
		return "superseded"
	case r.Failed:
		return "failed"
	}
	return "canceled"
}
