package deployment

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// Codes of ReleaseFailed.
const (
	CodePlacementTimeout = "placement_timeout"
	CodeImagePull        = "image_pull_failed"
	CodeStartFailed      = "start_failed"
	CodeStartTimeout     = "start_timeout"
	CodeHealthTimeout    = "health_timeout"
	CodeCrashed          = "crashed"
)

// Command is something asked of a deployment.
type Command interface{ command() }

type (
	// Create asks for a new deployment. Everything in it has been validated.
	Create struct {
		Event *deploymentv1.DeploymentRequested
	}
	// Restart rolls out a fresh release of the latest one: pulled again, new instances.
	Restart struct {
		ReleaseID, ContainerName string
		By                       string
	}
	// Rollback rolls out what an older release was; Number 0 is the last that ran before.
	Rollback struct {
		Number                   int64
		ReleaseID, ContainerName string
		By                       string
	}
	// ScaleTo changes how many instances there are.
	ScaleTo struct {
		Count int
		By    string
	}
	// Stop takes the deployment off the air; its record and its names stay.
	Stop struct{ By string }
	// Destroy removes it for good; its names are free at once.
	Destroy struct{ By string }

	// Schedule gives the next release's instances to nodes, or further ones of the live
	// release that is scaled up.
	Schedule struct {
		ReleaseID  string
		Placements []*deploymentv1.Placement
	}
	// Defer says why no node has room; an empty reason says that none is needed any more.
	Defer struct{ ReleaseID, Reason string }
	// Reschedule replaces instances of a release that their node cannot keep:
	// Placements[n] stands in for Replaced[n]; those beyond have their stand-in already.
	Reschedule struct {
		ReleaseID  string
		Placements []*deploymentv1.Placement
		Replaced   []string
		NodeLost   bool
		// NotHealthy says that the replaced ones did not become healthy in time.
		NotHealthy bool
		Reason     string
	}
	// Retire ends instances that others stand in for.
	Retire struct {
		ReleaseID string
		Instances []string
	}
	// MarkRunning ends the rollout of a bound release.
	MarkRunning struct{ ReleaseID string }
	// FailRelease ends the rollout of a release that cannot go on.
	FailRelease struct {
		ReleaseID string
		Failure   Failure
	}
	// MarkScaled and FailScale end a scale.
	MarkScaled struct{ ReleaseID string }
	FailScale  struct {
		ReleaseID string
		Failure   Failure
	}
	// MarkStopped and MarkDestroyed end a stop or a destroy.
	MarkStopped   struct{ Reason string }
	MarkDestroyed struct{ Reason string }
)

func (Create) command()        {}
func (Restart) command()       {}
func (Rollback) command()      {}
func (ScaleTo) command()       {}
func (MarkScaled) command()    {}
func (FailScale) command()     {}
func (Stop) command()          {}
func (Destroy) command()       {}
func (Schedule) command()      {}
func (Defer) command()         {}
func (Reschedule) command()    {}
func (Retire) command()        {}
func (MarkRunning) command()   {}
func (FailRelease) command()   {}
func (MarkStopped) command()   {}
func (MarkDestroyed) command() {}

// Decide answers a command with at most one event; nil means that there is
// nothing to do. A command that the state forbids is a *problem.Error of code
// invalid_state.
func Decide(s State, c Command, _ time.Time) (proto.Message, error) {
	if create, first := c.(Create); first {
		if s.Exists() {
			return nil, problem.Conflict("There is a deployment with this id already.")
		}
		return create.Event, nil
	}
	if !s.Exists() {
		return nil, problem.NotFound("Deployment not found: there is none with this id.")
	}
	switch c := c.(type) {
	case Restart:
		return decideRestart(s, c)
	case Rollback:
		return decideRollback(s, c)
	case ScaleTo:
		return decideScale(s, c)
	case Stop:
		return decideStop(s, c)
	case Destroy:
		return decideDestroy(s, c)
	case ConfigureIngress:
		return decideIngress(s, c)
	case Schedule:
		return decideSchedule(s, c), nil
	case MarkScaled:
		return decideMarkScaled(s, c), nil
	case FailScale:
		return decideFailScale(s, c), nil
	case Defer:
		return decideDefer(s, c), nil
	case Reschedule:
		return decideReschedule(s, c), nil
	case Retire:
		return decideRetire(s, c), nil
	case MarkRunning:
		if s.Next == nil || s.Next.Id != c.ReleaseID || !s.serves(s.Next) || s.Intent != IntentNone {
			return nil, nil
		}
		return &deploymentv1.DeploymentRunning{ReleaseId: c.ReleaseID, RetiredInstanceIds: s.instancesOutside(c.ReleaseID)}, nil
	case FailRelease:
		if s.Next == nil || s.Next.Id != c.ReleaseID || s.Intent != IntentNone {
			return nil, nil
		}
		f := c.Failure
		return &deploymentv1.ReleaseFailed{ReleaseId: c.ReleaseID, Code: f.Code, Reason: f.Reason,
			LastLines: f.LastLines, ExitCode: f.ExitCode, OomKilled: f.OOMKilled}, nil
	case MarkStopped:
		if s.Intent != IntentStop {
			return nil, nil
		}
		return &deploymentv1.DeploymentStopped{Reason: c.Reason}, nil
	case MarkDestroyed:
		if s.Intent != IntentDestroy {
			return nil, nil
		}
		return &deploymentv1.DeploymentDestroyed{Reason: c.Reason}, nil
	}
	return nil, fmt.Errorf("deciding on %T: no such command", c)
}

func decideRestart(s State, c Restart) (proto.Message, error) {
	switch {
	case s.Status == Destroyed || s.Intent == IntentDestroy:
		return nil, problem.InvalidState("Restart failed: the deployment is destroyed. Create a new one.")
	case s.Intent == IntentStop:
		return nil, problem.InvalidState("Restart failed: the deployment is being stopped. Restart it once its status is stopped.")
	case s.Next != nil:
		return nil, problem.InvalidState("Restart failed: a rollout is under way. Wait until it is running, or stop the deployment to cancel it.")
	case s.Scale != nil:
		return nil, problem.InvalidState("Restart failed: it is being scaled. Wait until that has ended, or scale back to cancel it.")
	}
	next := proto.CloneOf(s.base())
	next.Id, next.Number, next.ContainerName = c.ReleaseID, s.Latest.GetNumber()+1, c.ContainerName
	return &deploymentv1.RestartRequested{Release: next, InitiatedBy: c.By}, nil
}

func decideSchedule(s State, c Schedule) proto.Message {
	switch {
	case s.Intent != IntentNone || len(c.Placements) == 0:
		return nil
	case s.Next != nil && s.Next.Id == c.ReleaseID && s.Next.ScheduledAt.IsZero():
	case s.Next == nil && s.Live != nil && s.Live.Id == c.ReleaseID && len(c.Placements) <= s.missing():
	default:
		return nil
	}
	return &deploymentv1.DeploymentScheduled{ReleaseId: c.ReleaseID, Placements: c.Placements}
}

func decideStop(s State, c Stop) (proto.Message, error) {
	switch {
	case s.Status == Destroyed || s.Intent == IntentDestroy:
		return nil, problem.InvalidState("Stop failed: the deployment is destroyed.")
	case s.Status == Stopped:
		return nil, problem.InvalidState("Stop failed: the deployment is stopped already.")
	case s.Intent == IntentStop:
		return nil, nil
	}
	return &deploymentv1.StopRequested{InitiatedBy: c.By}, nil
}

func decideDestroy(s State, c Destroy) (proto.Message, error) {
	switch {
	case s.Status == Destroyed:
		return nil, problem.InvalidState("Destroy failed: the deployment is destroyed already.")
	case s.Intent == IntentDestroy:
		return nil, nil
	}
	return &deploymentv1.DestroyRequested{InitiatedBy: c.By}, nil
}

func (s State) instancesOutside(release string) []string {
	var ids []string
	for id, i := range s.Instances {
		if i.ReleaseID != release {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
