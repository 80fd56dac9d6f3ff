// Package audit folds a deployment's events into its audit log: what was done,
// by whom, and how it ended. It is pure; the rows are the read model's.
package audit

import (
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/structpb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// Statuses of an entry.
const (
	Started   = "started"
	Completed = "completed"
	Failed    = "failed"
)

// Actions, as the deploy lifecycle names them.
const (
	Create  = "create"
	Deploy  = "deploy"
	Restart = "restart"
	Stop    = "stop"
	Destroy = "destroy"
	// Scale and Rollback are the app dialect's.
	Scale    = "scale"
	Rollback = "rollback"
	Ingress  = "ingress"
)

// Change makes an entry, or says how an earlier one ended.
type Change struct {
	// Key is the entry's own within the deployment.
	Key string
	// New entries have Action, InitiatedBy and At; the others keep theirs.
	New         bool
	Action      string
	InitiatedBy string
	At          time.Time
	Status      string
	// Details are merged into the entry's; nil leaves them.
	Details *structpb.Struct
}

// EntryID is the stable id of a deployment's entry: the same log gives the same ids.
func EntryID(deploymentID, key string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("slipway:audit:"+deploymentID+":"+key)).String()
}

// Fold says what the event changes in the audit log, given the state before it:
// nothing, when that folds it into nothing either.
func Fold(before deployment.State, rec eventstore.Recorded) []Change {
	if _, first := rec.Payload.(*deploymentv1.DeploymentRequested); first == before.Exists() {
		return nil
	}
	open := func(key, action, by string) Change {
		return Change{Key: key, New: true, Action: action, InitiatedBy: by, At: rec.Time, Status: Started}
	}
	switch e := rec.Payload.(type) {
	case *deploymentv1.DeploymentRequested:
		c := open("create", Create, e.AppId)
		c.Status = Completed
		return []Change{c}
	case *deploymentv1.PlacementDeferred:
		if c, ok := rollout(before, e.ReleaseId, rec.Time); ok {
			c.Details = details(map[string]any{"waiting": Clean(e.Reason)})
			return []Change{c}
		}
		if scaling(before, e.ReleaseId) && e.Reason != "" {
			return []Change{{Key: scaleKey(before), Details: details(map[string]any{"waiting": Clean(e.Reason)})}}
		}
	case *deploymentv1.DeploymentScheduled:
		if c, ok := rollout(before, e.ReleaseId, rec.Time); ok {
			return []Change{c}
		}
	case *deploymentv1.RestartRequested:
		return []Change{open(rolloutKey(e.Release), Restart, e.InitiatedBy)}
	case *deploymentv1.RollbackRequested:
		c := open(rolloutKey(e.Release), Rollback, e.InitiatedBy)
		c.Details = details(map[string]any{"to_release": float64(e.FromReleaseNumber), "release": float64(e.Release.GetNumber()), "image": e.Release.GetImage()})
		return []Change{c}
	case *deploymentv1.ScaleRequested:
		if before.Live == nil || before.Live.Id != e.ReleaseId || before.Next != nil || before.Intent != deployment.IntentNone {
			return nil
		}
		c := open(key("scale", rec), Scale, e.InitiatedBy)
		c.Details = details(map[string]any{"from": float64(before.Count), "to": float64(e.Count)})
		return append(unscaled(before, "Another scale took its place."), c)
	case *deploymentv1.DeploymentScaled:
		if scaling(before, e.ReleaseId) {
			return []Change{{Key: scaleKey(before), Status: Completed}}
		}
	case *deploymentv1.ScaleFailed:
		if scaling(before, e.ReleaseId) {
			return []Change{{Key: scaleKey(before), Status: Failed,
				Details: details(map[string]any{"code": Clean(e.Code), "reason": Clean(e.Reason), "restored": float64(e.RestoredCount)})}}
		}
	case *deploymentv1.DeploymentRunning:
		if r := before.Next; r != nil && r.Id == e.ReleaseId {
			return append(unfinished(before, before.Live, "Another release was rolled out before."),
				Change{Key: rolloutKey(r.Release), Status: Completed})
		}
	case *deploymentv1.InstancesRescheduled:
		return moved(before, e, rec.Time)
	case *deploymentv1.ReleaseFailed:
		if r := before.Next; r != nil && r.Id == e.ReleaseId {
			return failed(r, e, rec.Time)
		}
	case *deploymentv1.StopRequested:
		return append(canceled(before, "stopped"), open(key("stop", rec), Stop, e.InitiatedBy))
	case *deploymentv1.DestroyRequested:
		changes := canceled(before, "destroyed")
		if before.Intent == deployment.IntentStop {
			changes = append(changes, Change{Key: intentKey("stop", before), Status: Failed,
				Details: details(map[string]any{"code": "canceled", "reason": "The deployment was destroyed before the stop ended."})})
		}
		return append(changes, open("destroy", Destroy, e.InitiatedBy))
	case *deploymentv1.DeploymentStopped:
		return []Change{{Key: intentKey("stop", before), Status: Completed, Details: reason(e.Reason)}}
	case *deploymentv1.DeploymentDestroyed:
		return []Change{{Key: "destroy", Status: Completed, Details: reason(e.Reason)}}
	case *deploymentv1.IngressConfigured:
		c := open(key("ingress", rec), Ingress, e.InitiatedBy)
		c.Status, c.Details = Completed, ingress(e.GetPolicy())
		return []Change{c}
	case *deploymentv1.ContainerExited:
		return exited(before, e, rec)
	case *deploymentv1.InstanceHealthy:
		i := before.Instances[e.InstanceId]
		if i != nil && i.Moved && !i.EverHealthy && e.Attempt == i.Attempt && live(before, i) {
			return []Change{{Key: moveKey(i.ID), Status: Completed}}
		}
		if i != nil && e.Attempt > 1 && e.Attempt == i.Attempt && live(before, i) && !i.Healthy {
			return []Change{{Key: crashKey(e.InstanceId, e.Attempt-1), Status: Completed}}
		}
	}
	return nil
}

func rollout(s deployment.State, release string, at time.Time) (Change, bool) {
	r := s.Next
	if r == nil || r.Id != release || r.Number != 1 {
		return Change{}, false
	}
	return Change{Key: rolloutKey(r.Release), New: true, Action: Deploy, At: at, Status: Started}, true
}

func rolloutKey(r *deploymentv1.Release) string { return "rollout/" + r.GetId() }

func scaling(s deployment.State, release string) bool {
	return s.Scale != nil && s.Live != nil && s.Live.Id == release
}

func scaleKey(s deployment.State) string {
	return "scale/" + s.Scale.RequestedAt.UTC().Format(time.RFC3339Nano)
}

// unscaled ends the entry of a scale that something else takes the place of.
func unscaled(s deployment.State, why string) []Change {
	if s.Scale == nil {
		return nil
	}
	return []Change{{Key: scaleKey(s), Status: Failed, Details: details(map[string]any{"code": "canceled", "reason": why})}}
}

func key(prefix string, rec eventstore.Recorded) string {
	return prefix + "/" + rec.Time.UTC().Format(time.RFC3339Nano)
}

func intentKey(prefix string, s deployment.State) string {
	return prefix + "/" + s.IntentAt.UTC().Format(time.RFC3339Nano)
}

func crashKey(instance string, attempt uint32) string {
	return "crash/" + instance + "/" + strconv.FormatUint(uint64(attempt), 10)
}

func failed(r *deployment.Release, e *deploymentv1.ReleaseFailed, at time.Time) []Change {
	d := map[string]any{"code": Clean(e.Code), "reason": Clean(e.Reason)}
	addEnd(d, e.ExitCode, e.OomKilled, e.LastLines)
	c := Change{Key: rolloutKey(r.Release), Status: Failed, Details: details(d)}
	if r.Number == 1 {
		// A release that never got a node has no entry yet.
		c.New, c.Action, c.At = true, Deploy, at
	}
	return []Change{c}
}

func canceled(s deployment.State, by string) []Change {
	changes := append(unfinished(s, s.Live, "The deployment was "+by+" before."), unscaled(s, "The deployment was "+by+" before.")...)
	if s.Next == nil || s.Next.Number == 1 && s.Next.ScheduledAt.IsZero() && s.Next.DeferredFor == "" {
		return changes
	}
	return append(changes, Change{Key: rolloutKey(s.Next.Release), Status: Failed,
		Details: details(map[string]any{"code": "canceled", "reason": "The deployment was " + by + " before the rollout ended."})})
}

// exited is a crash of the release that serves, or the last words of one whose
// rollout has failed.
func exited(s deployment.State, e *deploymentv1.ContainerExited, rec eventstore.Recorded) []Change {
	i := s.Instances[e.InstanceId]
	if i == nil || e.Attempt < i.Attempt || e.Attempt == i.Attempt && i.Phase == deployment.PhaseExited {
		return nil
	}
	if live(s, i) && s.Intent == deployment.IntentNone {
		d := map[string]any{"reason": deployment.ExitReason(e)}
		addEnd(d, &e.ExitCode, e.OomKilled, e.LastLines)
		changes := []Change{{Key: crashKey(e.InstanceId, e.Attempt), New: true, Action: Restart, At: rec.Time, Status: Started, Details: details(d)}}
		if !i.Healthy && e.Attempt > 1 {
			changes = append([]Change{{Key: crashKey(e.InstanceId, e.Attempt-1), Status: Failed}}, changes...)
		}
		return changes
	}
	over := s.Live == nil || s.Live.Id != i.ReleaseID
	if over && i.Retiring && !i.Drain && s.Intent == deployment.IntentNone && len(e.LastLines) > 0 {
		return []Change{{Key: "rollout/" + i.ReleaseID, Details: details(map[string]any{"last_lines": lines(e.LastLines)})}}
	}
	return nil
}

func moveKey(instance string) string { return "move/" + instance }

// moved is the platform's own restart of an instance on another node. One of a
// rollout under way is told with the rollout.
func moved(s deployment.State, e *deploymentv1.InstancesRescheduled, at time.Time) []Change {
	if r := s.Next; r != nil && r.Id == e.ReleaseId && len(e.Placements) > 0 {
		return []Change{{Key: rolloutKey(r.Release), Details: details(map[string]any{"moved": e.Reason})}}
	}
	if s.Live == nil || s.Live.Id != e.ReleaseId {
		return nil
	}
	var changes []Change
	for _, id := range e.ReplacedInstanceIds {
		i := s.Instances[id]
		switch {
		case i == nil || i.Healthy:
		case i.Moved && !i.EverHealthy:
			changes = append(changes, Change{Key: moveKey(id), Status: Failed, Details: details(map[string]any{"moved_on": e.Reason})})
		case e.NodeLost && i.Phase == deployment.PhaseExited:
			changes = append(changes, Change{Key: crashKey(id, i.Attempt), Status: Failed})
		case e.NodeLost && i.Attempt > 1:
			changes = append(changes, Change{Key: crashKey(id, i.Attempt-1), Status: Failed})
		}
	}
	for n, p := range e.Placements {
		d := map[string]any{"reason": e.Reason, "to_node": p.NodeId}
		if n < len(e.ReplacedInstanceIds) {
			if from := s.Instances[e.ReplacedInstanceIds[n]]; from != nil {
				d["from_node"] = from.Node
			}
		}
		changes = append(changes, Change{Key: moveKey(p.InstanceId), New: true, Action: Restart, At: at, Status: Started, Details: details(d)})
	}
	return changes
}

// unfinished ends the entries of moves that will not be seen to end.
func unfinished(s deployment.State, r *deployment.Release, why string) []Change {
	if r == nil {
		return nil
	}
	var changes []Change
	for _, id := range r.InstanceIDs {
		if i := s.Instances[id]; i != nil && i.Moved && !i.EverHealthy && !i.Retiring {
			changes = append(changes, Change{Key: moveKey(id), Status: Failed,
				Details: details(map[string]any{"code": "canceled", "canceled": why})})
		}
	}
	return changes
}

func live(s deployment.State, i *deployment.Instance) bool {
	return s.Live != nil && s.Live.Id == i.ReleaseID && !i.Retiring
}

func addEnd(d map[string]any, exitCode *int32, oom bool, last []string) {
	if exitCode != nil {
		d["exit_code"] = float64(*exitCode)
		d["oom_killed"] = oom
	}
	if len(last) > 0 {
		d["last_lines"] = lines(last)
	}
}

func lines(in []string) []any {
	out := make([]any, len(in))
	for i, l := range in {
		out[i] = Clean(l)
	}
	return out
}

// Clean makes a text from outside fit for a row: PostgreSQL keeps no NUL.
func Clean(s string) string { return strings.ReplaceAll(s, "\x00", "\uFFFD") }

func reason(r string) *structpb.Struct {
	if r == "" {
		return nil
	}
	return details(map[string]any{"reason": Clean(r)})
}

// details makes the entry's JSON. A text that is not UTF-8 becomes a sentence
// that says so: an app's output is anything.
func details(m map[string]any) *structpb.Struct {
	s, err := structpb.NewStruct(m)
	if err != nil {
		return &structpb.Struct{Fields: map[string]*structpb.Value{
			"reason": structpb.NewStringValue("The details hold text that cannot be shown: " + err.Error())}}
	}
	return s
}
