package deployment

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
)

// Evolve folds one event into the state. Facts about releases or instances that
// are gone, or of an attempt that is over, change nothing but the sequence; neither
// does what is said of a deployment that nobody asked for, or asking for it twice.
func Evolve(s State, rec eventstore.Recorded) State {
	s = s.clone()
	s.Sequence = rec.Sequence
	if _, first := rec.Payload.(*deploymentv1.DeploymentRequested); first == s.Exists() {
		return s
	}
	at := rec.Time
	switch e := rec.Payload.(type) {
	case *deploymentv1.DeploymentRequested:
		s.requested(e, rec)
	case *deploymentv1.PlacementDeferred:
		s.deferred(e)
	case *deploymentv1.DeploymentScheduled:
		s.scheduled(e, at)
	case *deploymentv1.DeploymentRunning:
		s.running(e, at)
	case *deploymentv1.ReleaseFailed:
		s.releaseFailed(e, at)
	case *deploymentv1.RestartRequested:
		s.rollOut(e.Release, at)
		s.remember(e.Release, at, e.InitiatedBy, 0)
		s.again(rec)
	case *deploymentv1.RollbackRequested:
		s.rollOut(e.Release, at)
		s.remember(e.Release, at, e.InitiatedBy, e.FromReleaseNumber)
		s.again(rec)
	case *deploymentv1.ScaleRequested:
		s.scaleRequested(e, at)
		s.TraceParent = rec.TraceParent
	case *deploymentv1.DeploymentScaled:
		s.scaleDone(e)
	case *deploymentv1.ScaleFailed:
		s.scaleFailed(e)
	case *deploymentv1.StopRequested:
		s.cancelScale()
		s.Intent, s.IntentAt = IntentStop, at
		s.Reason = "Stopping: the container is being stopped."
		s.TraceParent = rec.TraceParent
		s.retireAll()
	case *deploymentv1.DeploymentStopped:
		s.Status, s.Reason, s.StoppedAt = Stopped, e.Reason, at
		s.Live, s.Next, s.Intent = nil, nil, IntentNone
	case *deploymentv1.DestroyRequested:
		s.cancelScale()
		s.Intent, s.IntentAt, s.NamesHeld = IntentDestroy, at, false
		s.Reason = "Being destroyed: its route and container are being removed."
		s.TraceParent = rec.TraceParent
		s.retireAll()
	case *deploymentv1.IngressConfigured:
		s.Ingress = e.GetPolicy()
	case *deploymentv1.DeploymentDestroyed:
		s.Status, s.Reason = Destroyed, e.Reason
		if s.StoppedAt.IsZero() {
			s.StoppedAt = at
		}
		s.Live, s.Next, s.Intent = nil, nil, IntentNone
	case *deploymentv1.RouteBound:
		s.routeBound(e)
	case *deploymentv1.RouteRemoved:
		s.Routed, s.Bound = false, nil
	case *deploymentv1.InstancesRescheduled:
		s.rescheduled(e, at)
	case *deploymentv1.InstancesRetired:
		s.retired(e)
	default:
		s.instanceFact(rec)
	}
	s.unbind()
	return s
}

// unbind takes back that the edges send traffic to instances that have died, when
// there are others that the edges may have gone to: it has to be said again.
// proxy-config's fold must agree with this one, or it would not be.
func (s *State) unbind() {
	kept := 0
	for _, i := range s.Instances {
		if !i.Retiring {
			kept++
		}
	}
	if kept < 2 {
		return
	}
	s.Bound = slices.DeleteFunc(slices.Clone(s.Bound), func(id string) bool {
		i := s.Instances[id]
		return i == nil || !i.Healthy
	})
}

func (s *State) requested(e *deploymentv1.DeploymentRequested, rec eventstore.Recorded) {
	s.ID, s.Org, s.Operator, s.App = e.DeploymentId, e.OrgId, e.OperatorId, e.AppId
	s.Tier, s.Subdomain, s.Host, s.CustomDomain = e.Tier, e.Subdomain, e.Host, e.CustomDomain
	s.Status, s.InsertedAt, s.NamesHeld, s.Count = Pending, rec.Time, true, 1
	s.rollOut(e.Release, rec.Time)
	s.remember(e.Release, rec.Time, e.AppId, 0)
	s.TraceParent = rec.TraceParent
}

// rollOut begins a rollout. An event that names no release begins one of nothing,
// whose deadlines are over at once.
func (s *State) rollOut(r *deploymentv1.Release, at time.Time) {
	if r == nil {
		r = &deploymentv1.Release{}
	}
	s.cancelScale()
	s.Next, s.Latest = &Release{Release: r, RequestedAt: at, Digest: r.Digest}, r
}

// again is a deployment that was there and gets another release.
func (s *State) again(rec eventstore.Recorded) {
	s.Status, s.Reason, s.NamesHeld = Deploying, "", true
	s.StoppedAt = time.Time{}
	s.TraceParent = rec.TraceParent
}

func (s *State) scheduled(e *deploymentv1.DeploymentScheduled, at time.Time) {
	if s.Next == nil && s.Live != nil && s.Live.Id == e.ReleaseId && s.Scale != nil {
		s.scaledFurther(e, at)
		return
	}
	if s.Next == nil || s.Next.Id != e.ReleaseId {
		return
	}
	s.Status, s.Reason = Deploying, ""
	s.Next.ScheduledAt, s.Next.DeferredFor = at, ""
	for _, p := range e.Placements {
		s.Next.InstanceIDs = append(s.Next.InstanceIDs, p.InstanceId)
		s.Instances[p.InstanceId] = &Instance{ID: p.InstanceId, ReleaseID: e.ReleaseId, Node: p.NodeId, Name: p.ContainerName, PlacedAt: at}
	}
}

func (s *State) running(e *deploymentv1.DeploymentRunning, at time.Time) {
	if s.Next == nil || s.Next.Id != e.ReleaseId {
		return
	}
	s.Live, s.Next = s.Next, nil
	s.Good = s.Live.Release
	s.rewrite(e.ReleaseId, func(r *PastRelease) { r.Ran, r.Digest = true, s.Live.Digest })
	s.Status, s.Reason, s.DeployedAt = Running, "", at
	for _, i := range s.Instances {
		if i.ReleaseID != s.Live.Id && !i.Retiring {
			i.Retiring, i.Drain = true, true
		}
	}
}

func (s *State) releaseFailed(e *deploymentv1.ReleaseFailed, at time.Time) {
	if s.Next == nil || s.Next.Id != e.ReleaseId {
		return
	}
	for _, i := range s.Instances {
		if i.ReleaseID == e.ReleaseId {
			i.Retiring = true
		}
	}
	s.rewrite(e.ReleaseId, func(r *PastRelease) { r.Failed, r.Digest = true, s.Next.Digest })
	s.Next, s.Reason = nil, e.Reason
	if s.Live != nil {
		s.Status = Running
		s.Reason = "The last rollout failed, the former release goes on serving: " + e.Reason
		return
	}
	s.Status, s.StoppedAt, s.NamesHeld = Stopped, at, s.WasLive()
}

// retireAll ends every instance at once: what drains has had its time.
func (s *State) retireAll() {
	for _, i := range s.Instances {
		i.Retiring, i.Drain = true, false
	}
}

func (s *State) routeBound(e *deploymentv1.RouteBound) {
	s.Routed, s.Bound = true, e.InstanceIds
	for _, id := range e.InstanceIds {
		if i := s.Instances[id]; i != nil {
			i.Served = true
		}
	}
	// Edges may have been seen serving an instance that has been replaced since.
	if r := s.release(e.ReleaseId); r != nil && slices.ContainsFunc(e.InstanceIds, r.has) {
		r.Bound = true
	}
}

// instanceFact folds what node-agent and health saw of one instance.
func (s *State) instanceFact(rec eventstore.Recorded) {
	fact, ok := rec.Payload.(interface {
		GetReleaseId() string
		GetInstanceId() string
	})
	if !ok {
		return
	}
	i := s.Instances[fact.GetInstanceId()]
	if i == nil || i.ReleaseID != fact.GetReleaseId() {
		return
	}
	if i.Retiring {
		s.lastFact(i, rec.Payload)
		return
	}
	r := s.release(i.ReleaseID)
	switch e := rec.Payload.(type) {
	case *deploymentv1.ImagePulled:
		i.Digest = e.Digest
		if r != nil && r.Digest == "" {
			r.Digest = e.Digest
		}
		if s.rollingOut(i) {
			s.Reason = ""
		}
	case *deploymentv1.ImagePullFailed:
		reason := sentence(e.Reason)
		s.fault(i, r, &Failure{Code: CodeImagePull, Final: e.Final, Reason: reason})
		if s.rollingOut(i) {
			s.Reason = reason + " It is tried again."
		}
		s.tell(i, reason+" It is tried again.")
	case *deploymentv1.ContainerStartFailed:
		reason := "The container could not be started: " + sentence(e.Reason)
		s.fault(i, r, &Failure{Code: CodeStartFailed, Reason: reason, Final: s.rollingOut(i) && e.Attempt >= startAttempts})
		if s.rollingOut(i) {
			s.Reason = reason + " It is tried again."
		}
		s.tell(i, reason)
	case *deploymentv1.ContainerStarted:
		if e.Attempt < i.Attempt {
			return
		}
		if e.Attempt > i.Attempt {
			i.Healthy = false
		}
		i.Phase, i.ContainerID, i.Address, i.Attempt = PhaseStarted, e.ContainerId, e.Address, e.Attempt
		i.StartedAt = e.StartedAt.AsTime()
		if i.FirstStartedAt.IsZero() {
			i.FirstStartedAt = rec.Time
		}
		if r != nil && r.FirstStartedAt.IsZero() {
			r.FirstStartedAt = rec.Time
		}
	case *deploymentv1.ContainerExited:
		s.exited(i, r, e)
	case *deploymentv1.ContainerRemoved:
		i.Phase, i.Healthy = PhaseExited, false
	case *deploymentv1.InstanceHealthy:
		if e.Attempt == i.Attempt && i.Phase == PhaseStarted {
			i.Healthy, i.EverHealthy = true, true
			if s.Live != nil && i.ReleaseID == s.Live.Id && s.Next == nil && s.Scale == nil && s.Intent == IntentNone {
				s.Reason = ""
			}
		}
	case *deploymentv1.InstanceUnhealthy:
		if e.Attempt == i.Attempt && i.Phase == PhaseStarted {
			i.Healthy = false
			reason := "The app does not answer its health check: " + sentence(e.Reason)
			s.fault(i, r, &Failure{Code: CodeHealthTimeout, Reason: reason})
			s.tell(i, reason)
		}
	}
}

// lastFact folds what is seen of an instance that is to go: only its end matters.
// The rest may be stale: a node that was lost tells, when it returns, of instances
// that others stand in for.
func (s *State) lastFact(i *Instance, fact proto.Message) {
	switch e := fact.(type) {
	case *deploymentv1.ContainerExited:
		if e.Attempt >= i.Attempt {
			i.Phase, i.Healthy, i.Attempt = PhaseExited, false, e.Attempt
		}
	case *deploymentv1.ContainerRemoved:
		delete(s.Instances, i.ID)
	}
}

func (s *State) exited(i *Instance, r *Release, e *deploymentv1.ContainerExited) {
	if e.Attempt < i.Attempt || i.Phase == PhaseExited && e.Attempt == i.Attempt {
		return
	}
	i.Phase, i.Healthy, i.Attempt = PhaseExited, false, e.Attempt
	reason := ExitReason(e)
	code := e.ExitCode
	s.fault(i, r, &Failure{Code: CodeCrashed, Reason: reason, Final: e.RestartAt == nil,
		LastLines: e.LastLines, ExitCode: &code, OOMKilled: e.OomKilled})
	if e.RestartAt != nil {
		reason += " It is being started again."
	}
	s.tell(i, reason)
}

func (s *State) rollingOut(i *Instance) bool {
	return s.Next != nil && s.Next.Id == i.ReleaseID && s.Intent == IntentNone
}

// tell shows a reason to the operator when it is about the release that serves.
func (s *State) tell(i *Instance, reason string) {
	if s.Live != nil && i.ReleaseID == s.Live.Id && s.Intent == IntentNone && s.Next == nil {
		s.Reason = reason
	}
}

// fault keeps what went wrong with an instance, and so with its release.
func (s *State) fault(i *Instance, r *Release, f *Failure) {
	i.Failure = f
	if r != nil {
		r.Failure = f
	}
}

// ExitReason says in a sentence how a container ended.
func ExitReason(e *deploymentv1.ContainerExited) string {
	switch {
	case e.OomKilled:
		return "The container ran out of memory and was killed; use less memory or a tier with more."
	case e.ExitCode == 0:
		return "The container exited by itself with code 0; a web app has to keep running."
	default:
		return fmt.Sprintf("The container exited with code %d.", e.ExitCode)
	}
}

// sentence makes a reason from elsewhere begin and end like one.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return s
	}
	first, size := utf8.DecodeRuneInString(s)
	s = string(unicode.ToUpper(first)) + s[size:]
	if strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}
