package deployment

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// Scale is a change of the count of instances that is under way.
type Scale struct {
	// From is the count that holds again when it fails.
	From        int
	RequestedAt time.Time
	// PlacedAt is when instances were last placed for it; zero for never.
	PlacedAt time.Time
}

func decideScale(s State, c ScaleTo) (proto.Message, error) {
	switch {
	case c.Count < 1:
		return nil, problem.InvalidState("Scale failed: there is no scaling to 0 instances. Stop the deployment to take it off the air.")
	case s.Status == Destroyed || s.Intent == IntentDestroy:
		return nil, problem.InvalidState("Scale failed: the deployment is destroyed. Create a new one.")
	case s.Intent == IntentStop || s.Live == nil && s.Next == nil:
		return nil, problem.InvalidState("Scale failed: the deployment is stopped. Restart it first; it comes back with the instances that it had.")
	case s.Next != nil:
		return nil, problem.InvalidState("Scale failed: a rollout is under way. Wait until it is running, then scale.")
	case c.Count == s.Count:
		return nil, nil
	}
	return &deploymentv1.ScaleRequested{ReleaseId: s.Live.Id, Count: uint32(c.Count),
		LeavingInstanceIds: s.tooMany(c.Count, nil), InitiatedBy: c.By}, nil
}

func decideMarkScaled(s State, c MarkScaled) proto.Message {
	if s.Scale == nil || s.Live == nil || s.Live.Id != c.ReleaseID || s.Intent != IntentNone || s.Next != nil || !s.scaled() {
		return nil
	}
	return &deploymentv1.DeploymentScaled{ReleaseId: c.ReleaseID, Count: uint32(s.Count)}
}

func decideFailScale(s State, c FailScale) proto.Message {
	if s.Scale == nil || s.Live == nil || s.Live.Id != c.ReleaseID || s.Intent != IntentNone || s.Next != nil {
		return nil
	}
	return &deploymentv1.ScaleFailed{ReleaseId: c.ReleaseID, Count: uint32(s.Count), RestoredCount: uint32(s.Scale.From),
		Code: c.Failure.Code, Reason: c.Failure.Reason,
		LeavingInstanceIds: s.tooMany(s.Scale.From, func(i *Instance) bool { return !i.PlacedAt.Before(s.Scale.RequestedAt) })}
}

// tooMany chooses which of the live release's instances go when count are to stay:
// those that newer says, those that are going already, those that do not serve, those
// on the fullest node, the youngest.
func (s State) tooMany(count int, newer func(*Instance) bool) []string {
	staying := s.staying(s.Live)
	surplus := s.surplus(s.Live)
	all := slices.Concat(staying, surplus)
	beside := map[string]int{}
	for _, i := range all {
		beside[i.Node]++
	}
	no := func(yes bool) int {
		if yes {
			return 0
		}
		return 1
	}
	var ids []string
	for len(all) > count {
		out := slices.MinFunc(all, func(a, b *Instance) int {
			byAge := 0
			if newer != nil {
				byAge = cmp.Compare(no(newer(a)), no(newer(b)))
			}
			return cmp.Or(byAge,
				cmp.Compare(no(a.Leaving), no(b.Leaving)), cmp.Compare(no(!a.Healthy), no(!b.Healthy)),
				cmp.Compare(no(!a.Served), no(!b.Served)), -cmp.Compare(beside[a.Node], beside[b.Node]),
				b.PlacedAt.Compare(a.PlacedAt), -cmp.Compare(a.ID, b.ID))
		})
		beside[out.Node]--
		ids = append(ids, out.ID)
		all = slices.DeleteFunc(all, func(i *Instance) bool { return i == out })
	}
	slices.Sort(ids)
	return ids
}

// staying are the release's instances that are not leaving.
func (s State) staying(r *Release) []*Instance {
	return slices.DeleteFunc(s.of(r), func(i *Instance) bool { return i.Leaving })
}

// surplus are the release's instances that leave although nobody stands in for them.
// proxy-config's fold must agree with this one.
func (s State) surplus(r *Release) []*Instance {
	covered := map[string]bool{}
	for _, i := range s.staying(r) {
		for old := s.Instances[i.StandsInFor]; old != nil && old.Leaving && !covered[old.ID]; old = s.Instances[old.StandsInFor] {
			covered[old.ID] = true
		}
	}
	return slices.DeleteFunc(s.of(r), func(i *Instance) bool { return !i.Leaving || covered[i.ID] })
}

// PerNode counts the instances of a release on each node, those that leave apart.
func (s State) PerNode(release string) map[string]int {
	n := map[string]int{}
	for _, i := range s.Instances {
		if i.ReleaseID == release && !i.Retiring && !i.Leaving {
			n[i.Node]++
		}
	}
	return n
}

// missing is how many instances the live release is to have and nobody has placed.
func (s State) missing() int {
	if s.Scale == nil || s.Live == nil {
		return 0
	}
	return max(0, s.Count-len(s.staying(s.Live)))
}

// scaled reports whether as many instances have served as are wanted, and no others do.
func (s State) scaled() bool {
	staying := s.staying(s.Live)
	return len(staying) == s.Count && len(s.surplus(s.Live)) == 0 &&
		!slices.ContainsFunc(staying, func(i *Instance) bool { return !i.Served })
}

// advanceScale carries a scale to its end.
func advanceScale(s State, now time.Time) Step {
	r, d := s.Live, s.Live.GetDeadlines()
	if s.scaled() {
		return Step{Command: MarkScaled{ReleaseID: r.Id}}
	}
	latest := s.Scale.RequestedAt.Add(d.GetPlacement().AsDuration() + d.GetStart().AsDuration() + d.GetHealthy().AsDuration())
	if missing := s.missing(); missing > 0 {
		deadline := s.Scale.RequestedAt.Add(d.GetPlacement().AsDuration())
		if now.Before(deadline) {
			return Step{NeedsPlacement: missing, Wake: deadline}
		}
		return failScale(r, Failure{Code: CodePlacementTimeout, Reason: "No node had room in time. " + r.DeferredFor})
	}
	began := s.Scale.RequestedAt
	if s.Scale.PlacedAt.After(began) {
		began = s.Scale.PlacedAt
	}
	if f := r.Failure; f != nil && f.Final && f.Code == CodeImagePull {
		return failScale(r, *f)
	}
	within := d.GetStart().AsDuration() + d.GetHealthy().AsDuration()
	deadline := earliest(began.Add(within), latest)
	if now.Before(deadline) {
		return Step{Wake: deadline}
	}
	f := Failure{Code: CodeHealthTimeout, Reason: fmt.Sprintf("Not all of the %s were healthy and served within %s.", instances(s.Count), within)}
	if r.Failure != nil {
		f.Code = r.Failure.Code
		f.Reason += " " + r.Failure.Reason
	}
	return failScale(r, f)
}

func failScale(r *Release, f Failure) Step {
	return Step{Command: FailScale{ReleaseID: r.GetId(), Failure: f}}
}

func (s *State) scaleRequested(e *deploymentv1.ScaleRequested, at time.Time) {
	if s.Live == nil || s.Live.Id != e.ReleaseId || s.Next != nil || s.Intent != IntentNone {
		return
	}
	from := s.Count
	if s.Scale != nil {
		from = s.Scale.From
	}
	s.Scale, s.Count = &Scale{From: from, RequestedAt: at}, int(e.Count)
	s.Live.Failure, s.Live.DeferredFor = nil, ""
	s.leave(e.LeavingInstanceIds)
	s.Reason = s.Scaling()
}

func (s *State) scaleDone(e *deploymentv1.DeploymentScaled) {
	if s.Scale == nil || s.Live == nil || s.Live.Id != e.ReleaseId {
		return
	}
	s.Scale, s.Reason, s.Live.DeferredFor = nil, "", ""
}

func (s *State) scaleFailed(e *deploymentv1.ScaleFailed) {
	if s.Scale == nil || s.Live == nil || s.Live.Id != e.ReleaseId {
		return
	}
	s.Scale, s.Count, s.Live.DeferredFor = nil, int(e.RestoredCount), ""
	s.leave(e.LeavingInstanceIds)
	s.Reason = fmt.Sprintf("The last scale failed, it has %s again: %s", instances(s.Count), e.Reason)
}

// scaledFurther places further instances of the live release.
func (s *State) scaledFurther(e *deploymentv1.DeploymentScheduled, at time.Time) {
	for _, p := range e.Placements {
		s.Instances[p.InstanceId] = &Instance{ID: p.InstanceId, ReleaseID: e.ReleaseId, Node: p.NodeId, Name: p.ContainerName, PlacedAt: at, Added: true}
		s.Live.InstanceIDs = append(s.Live.InstanceIDs, p.InstanceId)
	}
	s.Scale.PlacedAt, s.Live.DeferredFor = at, ""
	s.Reason = s.Scaling()
}

// leave has those instances of the live release leave, and those that were leaving
// without a stand-in stay. One that was ever healthy takes traffic until others do;
// the others have nothing to keep. proxy-config's fold must agree with this one.
func (s *State) leave(ids []string) {
	for _, i := range s.surplus(s.Live) {
		i.Leaving = false
	}
	for _, id := range ids {
		i := s.Instances[id]
		switch {
		case i == nil || i.ReleaseID != s.Live.Id || i.Retiring:
		case i.EverHealthy:
			i.Leaving = true
		default:
			s.drop(s.Live, i)
		}
	}
}

// Scaling says to people what is under way.
func (s State) Scaling() string { return fmt.Sprintf("It is being scaled to %s.", instances(s.Count)) }

// cancelScale ends a scale that something else takes the place of.
func (s *State) cancelScale() {
	if s.Scale != nil {
		s.Count, s.Scale = s.Scale.From, nil
	}
}

func instances(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", n)
}
