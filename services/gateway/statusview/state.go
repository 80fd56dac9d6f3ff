// Package statusview answers "how is this deployment?" from memory: a small fold
// of the deployments' events, and the time of the last probe. It follows the log,
// so it may be behind it by a moment; see View.Get for what that means to a writer.
package statusview

import (
	"maps"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
)

// Statuses and health statuses of the deploy dialect.
const (
	Pending   = "pending"
	Deploying = "deploying"
	Running   = "running"
	Stopped   = "stopped"
	Destroyed = "destroyed"

	HealthUnknown   = "unknown"
	HealthStarting  = "starting"
	HealthHealthy   = "healthy"
	HealthUnhealthy = "unhealthy"
)

// State is what the view keeps of one deployment; the zero State is none.
type State struct {
	ID, OrgID, OperatorID, Subdomain string
	Status                           string
	// CheckedAt is the newest probe the events tell of.
	CheckedAt time.Time

	// live is the release that serves, next the one rolling out; empty for none.
	live, next  string
	nextStarted bool
	instances   map[string]instance
}

type instance struct {
	release string
	attempt uint32
	started bool
	healthy bool
	// everHealthy instances serve until one stands in for them, unless their node is lost.
	everHealthy bool
}

// Evolve folds one event in. Facts of releases, instances or attempts that are
// over change nothing.
func Evolve(s State, event proto.Message) State {
	switch e := event.(type) {
	case *deploymentv1.DeploymentRequested:
		return State{
			ID: e.GetDeploymentId(), OrgID: e.GetOrgId(), OperatorID: e.GetOperatorId(),
			Subdomain: e.GetSubdomain(), Status: Pending, next: e.GetRelease().GetId(),
		}
	case *deploymentv1.RestartRequested:
		s.Status, s.next, s.nextStarted = Deploying, e.GetRelease().GetId(), false
	case *deploymentv1.RollbackRequested:
		s.Status, s.next, s.nextStarted = Deploying, e.GetRelease().GetId(), false
	case *deploymentv1.ScaleRequested:
		return s.left(e.GetReleaseId(), e.GetLeavingInstanceIds())
	case *deploymentv1.ScaleFailed:
		return s.left(e.GetReleaseId(), e.GetLeavingInstanceIds())
	case *deploymentv1.DeploymentScheduled:
		if e.GetReleaseId() == s.live && s.next == "" && s.live != "" {
			s.instances = placed(s.instances, s.live, e.GetPlacements())
			return s
		}
		if e.GetReleaseId() == s.next {
			s.Status = Deploying
			s.instances = placed(s.instances, s.next, e.GetPlacements())
		}
	case *deploymentv1.InstancesRescheduled:
		return s.rescheduled(e)
	case *deploymentv1.InstancesRetired:
		s.instances = maps.Clone(s.instances)
		for _, id := range e.GetInstanceIds() {
			delete(s.instances, id)
		}
	case *deploymentv1.DeploymentRunning:
		if e.GetReleaseId() == s.next {
			s.Status, s.live, s.next = Running, s.next, ""
		}
	case *deploymentv1.ReleaseFailed:
		if e.GetReleaseId() == s.next {
			s.next, s.Status = "", Stopped
			if s.live != "" {
				s.Status = Running
			}
		}
	case *deploymentv1.DeploymentStopped:
		s.Status, s.live, s.next, s.instances = Stopped, "", "", nil
	case *deploymentv1.DeploymentDestroyed:
		s.Status, s.live, s.next, s.instances = Destroyed, "", "", nil
	case *deploymentv1.ContainerRemoved:
		if _, ok := s.instances[e.GetInstanceId()]; ok {
			s.instances = maps.Clone(s.instances)
			delete(s.instances, e.GetInstanceId())
		}
	case instanceFact:
		return s.seen(e)
	}
	return s
}

func placed(instances map[string]instance, release string, placements []*deploymentv1.Placement) map[string]instance {
	instances = maps.Clone(instances)
	if instances == nil {
		instances = map[string]instance{}
	}
	for _, p := range placements {
		instances[p.GetInstanceId()] = instance{release: release}
	}
	return instances
}

// rescheduled replaces instances; those that have nothing to serve any more do not
// count from here on, whatever is still told of them.
func (s State) rescheduled(e *deploymentv1.InstancesRescheduled) State {
	release := e.GetReleaseId()
	if release == "" || release != s.live && release != s.next {
		return s
	}
	s.instances = placed(s.instances, release, e.GetPlacements())
	for _, id := range e.GetReplacedInstanceIds() {
		if i := s.instances[id]; i.release == release && (e.GetNodeLost() || !i.everHealthy) {
			delete(s.instances, id)
		}
	}
	if release == s.next && len(e.GetPlacements()) > 0 {
		s.nextStarted = false
		for _, i := range s.instances {
			s.nextStarted = s.nextStarted || i.release == release && (i.started || i.attempt > 0)
		}
	}
	return s
}

// left has instances go that never served; the others do once they are retired.
func (s State) left(release string, ids []string) State {
	if release == "" || release != s.live {
		return s
	}
	s.instances = maps.Clone(s.instances)
	for _, id := range ids {
		if i := s.instances[id]; i.release == release && !i.everHealthy {
			delete(s.instances, id)
		}
	}
	return s
}

// instanceFact is what was seen of one attempt of one instance.
type instanceFact interface {
	GetReleaseId() string
	GetInstanceId() string
	GetAttempt() uint32
}

func (s State) seen(fact instanceFact) State {
	i, ok := s.instances[fact.GetInstanceId()]
	if !ok || i.release != fact.GetReleaseId() || fact.GetAttempt() < i.attempt {
		return s
	}
	same := fact.GetAttempt() == i.attempt && i.started
	switch e := fact.(type) {
	case *deploymentv1.ContainerStarted:
		i.healthy = i.healthy && same
		i.attempt, i.started = e.GetAttempt(), true
		if i.release == s.next {
			s.nextStarted = true
		}
	case *deploymentv1.ContainerExited:
		i.attempt, i.started, i.healthy = e.GetAttempt(), false, false
	case *deploymentv1.InstanceHealthy:
		if !same {
			return s
		}
		i.healthy, i.everHealthy = true, true
		s.CheckedAt = later(s.CheckedAt, e.GetCheckedAt())
	case *deploymentv1.InstanceUnhealthy:
		if !same {
			return s
		}
		i.healthy = false
		s.CheckedAt = later(s.CheckedAt, e.GetCheckedAt())
	default:
		return s
	}
	s.instances = maps.Clone(s.instances)
	s.instances[fact.GetInstanceId()] = i
	return s
}

// Health is that of the release that serves, also while another one rolls out; of
// the one rolling out when none serves.
func (s State) Health() string {
	switch {
	case s.Status == Stopped || s.Status == Destroyed:
		return HealthUnknown
	case s.live != "" && s.anyHealthy(s.live):
		return HealthHealthy
	case s.live != "":
		return HealthUnhealthy
	case s.next == "" || !s.nextStarted:
		return HealthUnknown
	case s.anyHealthy(s.next):
		return HealthHealthy
	}
	return HealthStarting
}

func (s State) anyHealthy(release string) bool {
	for _, i := range s.instances {
		if i.release == release && i.healthy {
			return true
		}
	}
	return false
}

// later is the later of both; an unset b is none.
func later(a time.Time, b *timestamppb.Timestamp) time.Time {
	if b != nil && b.AsTime().After(a) {
		return b.AsTime()
	}
	return a
}
