package deployment

import (
	"slices"
	"time"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

// Status is what the operator sees.
type Status string

// The five statuses of the deploy lifecycle.
const (
	Pending   Status = "pending"
	Deploying Status = "deploying"
	Running   Status = "running"
	Stopped   Status = "stopped"
	Destroyed Status = "destroyed"
)

// Health is how the live release's instances answer their probes.
type Health string

// The health statuses.
const (
	HealthUnknown   Health = "unknown"
	HealthStarting  Health = "starting"
	HealthHealthy   Health = "healthy"
	HealthUnhealthy Health = "unhealthy"
)

// Intent is an asked-for end that is still under way.
type Intent int

// Intents.
const (
	IntentNone Intent = iota
	IntentStop
	IntentDestroy
)

// State is one deployment, folded from its events. The zero value is a
// deployment that does not exist.
type State struct {
	// Sequence is that of the last event folded in; 0 when there is none.
	Sequence uint64

	ID, Org, Operator, App string
	Tier                   *deploymentv1.Tier
	Subdomain, Host        string
	// CustomDomain is the one that it was asked for with.
	CustomDomain string

	Status Status
	Reason string

	InsertedAt, DeployedAt, StoppedAt time.Time

	// Count is how many instances are wanted of the release that serves, and of every
	// one that rolls out; at least 1.
	Count int
	// Scale is nil when no change of Count is under way.
	Scale *Scale

	// Live is the release that serves; Next is the one rolling out. Either may be nil.
	Live, Next *Release
	// Latest is the newest release, whatever became of it; Good the last that served,
	// nil for none.
	Latest, Good *deploymentv1.Release
	// History is the newest releases, oldest first, at most MaxHistory.
	History []PastRelease

	// NamesHeld is true while the claims on the subdomain and the custom domain are ours.
	NamesHeld bool
	// Routed is true from RouteBound until RouteRemoved.
	Routed bool
	// Bound are the instances that every edge sends traffic to, by the last RouteBound,
	// without those that have died since while there were others.
	Bound []string

	Intent   Intent
	IntentAt time.Time

	// Instances are all that may still exist somewhere, by id, retiring ones too.
	Instances map[string]*Instance

	// Ingress is how edges treat its requests; nil for their defaults. It is never
	// changed, only replaced.
	Ingress *routingv1.RoutePolicy

	// TraceParent is of the last command asked for from outside.
	TraceParent string
}

// Release is a release on its way or live.
type Release struct {
	*deploymentv1.Release
	RequestedAt time.Time
	// DeferredFor is why no node had room; empty when that was not so.
	DeferredFor string
	// ScheduledAt is zero until instances have been given to nodes.
	ScheduledAt time.Time
	// FirstStartedAt is zero until a container of it has started.
	FirstStartedAt time.Time
	InstanceIDs    []string
	// Digest is the image's as it was first pulled for the release; empty for unknown.
	Digest string
	// Bound is true once every edge sends traffic to it.
	Bound bool
	// Failure is the last thing that went wrong on the way; nil for nothing yet.
	Failure *Failure
}

// Failure is something that went wrong with an instance.
type Failure struct {
	Code   string
	Reason string
	// Final is true when trying again cannot help.
	Final     bool
	LastLines []string
	ExitCode  *int32
	OOMKilled bool
}

// Phase is how far an instance has come.
type Phase int

// Phases of an instance.
const (
	PhaseScheduled Phase = iota
	PhaseStarted
	PhaseExited
)

// Instance is one container of one release on one node.
type Instance struct {
	ID, ReleaseID, Node, Name string
	Phase                     Phase
	ContainerID, Address      string
	// Attempt counts starts; facts of an earlier one are stale.
	Attempt   uint32
	StartedAt time.Time
	// FirstStartedAt is zero until its container has started.
	FirstStartedAt time.Time
	Digest         string
	Healthy        bool
	// EverHealthy is true once any attempt of it was healthy.
	EverHealthy bool
	// Served is true once every edge sent traffic to it.
	Served bool
	// Failure is the last thing that went wrong with it; nil for nothing yet.
	Failure *Failure
	// Retiring instances are to be removed; Drain first when they served.
	Retiring, Drain bool

	// PlacedAt is when it was given to its node.
	PlacedAt time.Time
	// Moved instances stand in for one that its node could not keep.
	Moved bool
	// Added instances came with a scale.
	Added bool
	// StandsInFor is the leaving instance that goes once this one serves; empty for none.
	StandsInFor string
	// Leaving instances serve until one stands in for them, or until others of the
	// release serve when nobody does.
	Leaving bool
}

// Exists reports whether the deployment was ever asked for.
func (s State) Exists() bool { return s.ID != "" }

// HealthStatus is that of the serving release, or of the one starting when none serves.
func (s State) HealthStatus() Health {
	if s.Status == Stopped || s.Status == Destroyed {
		return HealthUnknown
	}
	if s.Live != nil {
		if s.anyHealthy(s.Live) {
			return HealthHealthy
		}
		return HealthUnhealthy
	}
	if s.Next == nil || s.Next.FirstStartedAt.IsZero() {
		return HealthUnknown
	}
	if s.anyHealthy(s.Next) {
		return HealthHealthy
	}
	return HealthStarting
}

func (s State) anyHealthy(r *Release) bool {
	return slices.ContainsFunc(r.InstanceIDs, func(id string) bool {
		i := s.Instances[id]
		return i != nil && i.Healthy
	})
}

// allHealthy reports whether all instances of the release that are to stay answer.
func (s State) allHealthy(r *Release) bool {
	staying := s.staying(r)
	return len(staying) > 0 && !slices.ContainsFunc(staying, func(i *Instance) bool { return !i.Healthy })
}

// serves reports whether every edge was last seen sending traffic to all instances of
// the release, and they are healthy still. If one has died since, the edges may have
// gone back to what served before.
func (s State) serves(r *Release) bool {
	return r.Bound && s.allHealthy(r) && !slices.ContainsFunc(s.staying(r), func(i *Instance) bool {
		return !slices.Contains(s.Bound, i.ID)
	})
}

// WasLive reports whether any release of it ever served. One that never did gives
// its names back when its first release fails.
func (s State) WasLive() bool { return !s.DeployedAt.IsZero() }

// Names are the hosts that the deployment has by itself. Its custom domains have
// events of their own.
func (s State) Names() []string { return []string{s.Host} }

// current is the release that readers are shown: the one rolling out, else the
// live one, else none.
func (s State) current() *Release {
	if s.Next != nil {
		return s.Next
	}
	return s.Live
}

// release returns the live or next release of that id.
func (s State) release(id string) *Release {
	for _, r := range [...]*Release{s.Next, s.Live} {
		if r != nil && r.Id == id {
			return r
		}
	}
	return nil
}

// clone copies what Evolve changes, so that an older State stays what it was.
func (s State) clone() State {
	s.Live, s.Next = s.Live.clone(), s.Next.clone()
	if s.Scale != nil {
		c := *s.Scale
		s.Scale = &c
	}
	instances := make(map[string]*Instance, len(s.Instances))
	for id, i := range s.Instances {
		c := *i
		instances[id] = &c
	}
	s.Instances = instances
	return s
}

func (r *Release) clone() *Release {
	if r == nil {
		return nil
	}
	c := *r
	c.InstanceIDs = slices.Clone(r.InstanceIDs)
	return &c
}
