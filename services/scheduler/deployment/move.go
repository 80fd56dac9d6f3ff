package deployment

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
)

// Trouble is why a node cannot keep its instances.
type Trouble int

// Troubles of a node. A node without any has no entry in Nodes.
const (
	// NodeLost: it is silent; its instances count as gone.
	NodeLost Trouble = iota + 1
	// NodeDraining: its instances serve until others stand in for them.
	NodeDraining
)

// Nodes are the nodes in trouble, by id.
type Nodes map[string]Trouble

// Move asks for other nodes for some instances of one release.
type Move struct {
	ReleaseID string
	// Replace need a stand-in each; Gone were lost and have theirs already.
	Replace, Gone []string
	NodeLost      bool
	// Reason says to people why.
	Reason string
	// Avoid are nodes that shall not take a stand-in.
	Avoid []string
	// Patient moves are worth no word while there is no room.
	Patient bool
}

// dueMove is the move that is due, and when time alone makes one due.
func dueMove(s State, nodes Nodes, now time.Time) (*Move, time.Time) {
	if r := s.Next; r != nil && !r.ScheduledAt.IsZero() && now.Before(r.latest()) {
		if m := lostMove(s, r, nodes); m != nil {
			return m, time.Time{}
		}
	}
	if s.Live == nil || s.Next != nil && s.serves(s.Next) {
		return nil, time.Time{}
	}
	if m := lostMove(s, s.Live, nodes); m != nil {
		return m, time.Time{}
	}
	if s.Next != nil {
		// What serves is about to be replaced anyway.
		return nil, time.Time{}
	}
	if m := drainMove(s, s.Live, nodes); m != nil {
		return m, time.Time{}
	}
	return stuckMove(s, s.Live, now)
}

func lostMove(s State, r *Release, nodes Nodes) *Move {
	m := &Move{ReleaseID: r.Id, NodeLost: true}
	for _, i := range s.of(r) {
		switch {
		case nodes[i.Node] != NodeLost:
		case i.Leaving:
			m.Gone = append(m.Gone, i.ID)
		default:
			m.Replace = append(m.Replace, i.ID)
			m.Reason = fmt.Sprintf("The node %s is lost: it has not been heard of.", i.Node)
		}
	}
	if len(m.Replace)+len(m.Gone) == 0 {
		return nil
	}
	return m
}

func drainMove(s State, r *Release, nodes Nodes) *Move {
	m := &Move{ReleaseID: r.Id}
	for _, i := range s.of(r) {
		if nodes[i.Node] == NodeDraining && !i.Leaving {
			m.Replace = append(m.Replace, i.ID)
			m.Reason = fmt.Sprintf("The node %s is being drained.", i.Node)
		}
	}
	if len(m.Replace) == 0 {
		return nil
	}
	return m
}

// stuckMove tries a stand-in that did not become healthy in time on another node.
// While no other has room it stays: its node keeps trying too.
func stuckMove(s State, r *Release, now time.Time) (*Move, time.Time) {
	m := &Move{ReleaseID: r.Id, Patient: true}
	var wake time.Time
	within := r.GetDeadlines().GetStart().AsDuration() + r.GetDeadlines().GetHealthy().AsDuration()
	for _, i := range s.of(r) {
		if !i.Moved || i.EverHealthy || i.Leaving {
			continue
		}
		if at := i.PlacedAt.Add(within); now.Before(at) {
			wake = earliest(wake, at)
			continue
		}
		m.Replace, m.Avoid = append(m.Replace, i.ID), append(m.Avoid, i.Node)
		m.Reason = fmt.Sprintf("The app did not become healthy on the node %s within %s.", i.Node, within)
	}
	if len(m.Replace) == 0 {
		return nil, wake
	}
	return m, wake
}

// dueRetirement are the leaving instances that every edge has left for one that
// stands in for them, or, when nobody does, for any other of the release.
func dueRetirement(s State, r *Release) []string {
	var ids []string
	for _, i := range s.of(r) {
		if !i.Healthy || i.Leaving || !slices.Contains(s.Bound, i.ID) {
			continue
		}
		seen := map[string]bool{}
		for old := s.Instances[i.StandsInFor]; old != nil && old.Leaving && !seen[old.ID]; old = s.Instances[old.StandsInFor] {
			seen[old.ID] = true
			if !slices.Contains(s.Bound, old.ID) && !slices.Contains(ids, old.ID) {
				ids = append(ids, old.ID)
			}
		}
	}
	if slices.ContainsFunc(s.staying(r), func(i *Instance) bool { return i.Healthy && slices.Contains(s.Bound, i.ID) }) {
		for _, i := range s.surplus(r) {
			if !slices.Contains(s.Bound, i.ID) && !slices.Contains(ids, i.ID) {
				ids = append(ids, i.ID)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

func decideDefer(s State, c Defer) proto.Message {
	r := s.release(c.ReleaseID)
	if r == nil || r.DeferredFor == c.Reason || s.Intent != IntentNone {
		return nil
	}
	if r == s.Live && r.DeferredFor != "" && c.Reason != "" {
		// It has been said; how much room is missing today is no news.
		return nil
	}
	return &deploymentv1.PlacementDeferred{ReleaseId: c.ReleaseID, Reason: c.Reason}
}

func decideReschedule(s State, c Reschedule) proto.Message {
	r := s.release(c.ReleaseID)
	if r == nil || s.Intent != IntentNone || len(c.Replaced) == 0 || len(c.Placements) > len(c.Replaced) {
		return nil
	}
	for n, id := range c.Replaced {
		if !r.has(id) || n < len(c.Placements) && s.Instances[id].Leaving {
			return nil
		}
	}
	return &deploymentv1.InstancesRescheduled{ReleaseId: c.ReleaseID, Placements: c.Placements,
		ReplacedInstanceIds: c.Replaced, NodeLost: c.NodeLost, Reason: c.Reason}
}

func decideRetire(s State, c Retire) proto.Message {
	r := s.release(c.ReleaseID)
	if r == nil || s.Intent != IntentNone || len(c.Instances) == 0 {
		return nil
	}
	for _, id := range c.Instances {
		if !r.has(id) || !s.Instances[id].Leaving {
			return nil
		}
	}
	return &deploymentv1.InstancesRetired{ReleaseId: c.ReleaseID, InstanceIds: c.Instances}
}

func (s *State) deferred(e *deploymentv1.PlacementDeferred) {
	r := s.release(e.ReleaseId)
	if r == nil {
		return
	}
	if r == s.Next || s.Next == nil && (e.Reason != "" || s.Reason == r.DeferredFor) {
		s.Reason = e.Reason
	}
	r.DeferredFor = e.Reason
}

// rescheduled replaces instances. One that was ever healthy on a node that is still
// there serves until its stand-in does; the others have nothing to keep.
// proxy-config's fold must agree with this one.
func (s *State) rescheduled(e *deploymentv1.InstancesRescheduled, at time.Time) {
	r := s.release(e.ReleaseId)
	if r == nil {
		return
	}
	for n, p := range e.Placements {
		i := &Instance{ID: p.InstanceId, ReleaseID: r.Id, Node: p.NodeId, Name: p.ContainerName, PlacedAt: at, Moved: true}
		if n < len(e.ReplacedInstanceIds) {
			i.StandsInFor = e.ReplacedInstanceIds[n]
		}
		s.Instances[i.ID] = i
		r.InstanceIDs = append(r.InstanceIDs, i.ID)
	}
	for _, id := range e.ReplacedInstanceIds {
		old := s.Instances[id]
		switch {
		case old == nil || old.ReleaseID != r.Id || old.Retiring:
		case !e.NodeLost && old.EverHealthy:
			old.Leaving = true
		default:
			s.drop(r, old)
		}
	}
	if len(e.Placements) == 0 {
		return
	}
	r.DeferredFor = ""
	if r == s.Next {
		s.beginAgain(at)
	}
	if r == s.Next || s.Next == nil {
		s.Reason = e.Reason + " It is being started on another node."
	}
}

// beginAgain gives the rollout its time anew, when none of its instances is left
// that has begun. It ends by Release.latest all the same.
func (s *State) beginAgain(at time.Time) {
	begun := slices.ContainsFunc(s.of(s.Next), func(i *Instance) bool { return i.Phase != PhaseScheduled })
	if begun {
		return
	}
	s.Next.ScheduledAt, s.Next.FirstStartedAt, s.Next.Bound, s.Next.Failure = at, time.Time{}, false, nil
}

// drop takes an instance out of its release; who stood in for it stands in for
// whom it did.
func (s *State) drop(r *Release, old *Instance) {
	old.Retiring, old.Leaving = true, false
	r.InstanceIDs = slices.DeleteFunc(r.InstanceIDs, func(id string) bool { return id == old.ID })
	for _, i := range s.Instances {
		if i.StandsInFor == old.ID {
			i.StandsInFor = old.StandsInFor
		}
	}
}

func (s *State) retired(e *deploymentv1.InstancesRetired) {
	r := s.release(e.ReleaseId)
	if r == nil {
		return
	}
	for _, id := range e.InstanceIds {
		if i := s.Instances[id]; i != nil && i.ReleaseID == r.Id && !i.Retiring {
			s.drop(r, i)
			i.Drain = true
		}
	}
}

// of returns the release's instances that are to be there, in the order they were placed.
func (s State) of(r *Release) []*Instance {
	list := make([]*Instance, 0, len(r.InstanceIDs))
	for _, id := range r.InstanceIDs {
		if i := s.Instances[id]; i != nil {
			list = append(list, i)
		}
	}
	return list
}

func (r *Release) has(instance string) bool { return slices.Contains(r.InstanceIDs, instance) }

// latest is when the rollout ends at the latest, however often nodes are lost.
func (r *Release) latest() time.Time {
	d := r.GetDeadlines()
	return r.RequestedAt.Add(d.GetPlacement().AsDuration() + d.GetStart().AsDuration() + d.GetHealthy().AsDuration())
}

// anyLost reports whether an instance of the release is on a node that is lost.
func (s State) anyLost(r *Release, nodes Nodes) bool {
	return slices.ContainsFunc(s.of(r), func(i *Instance) bool { return nodes[i.Node] == NodeLost })
}

// earliest is the earlier of two times; zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
