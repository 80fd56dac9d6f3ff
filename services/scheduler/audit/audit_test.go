package audit_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/scheduler/audit"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

type entry struct{ action, status, by, details string }

// fold plays the events and returns the audit log, oldest first, a line an entry.
func fold(events ...proto.Message) []string {
	var s deployment.State
	var order []string
	log := map[string]*entry{}
	for i, e := range events {
		rec := eventstore.Recorded{Sequence: uint64(i + 1), Event: eventstore.Event{Payload: e, Time: time.Unix(int64(i), 0).UTC()}}
		for _, c := range audit.Fold(s, rec) {
			at := log[c.Key]
			if at == nil && c.New {
				at = &entry{action: c.Action, by: c.InitiatedBy}
				log[c.Key] = at
				order = append(order, c.Key)
			}
			if at == nil {
				continue
			}
			if c.Status != "" {
				at.status = c.Status
			}
			if c.Details != nil {
				var keys []string
				for k := range c.Details.Fields {
					keys = append(keys, k)
				}
				slices.Sort(keys)
				at.details += strings.Join(keys, ",")
			}
		}
		s = deployment.Evolve(s, rec)
	}
	var out []string
	for _, k := range order {
		e := log[k]
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s by=%s %s", e.action, e.status, e.by, e.details)))
	}
	return out
}

func release(id string, number uint32) *deploymentv1.Release {
	return &deploymentv1.Release{Id: id, Number: number, Port: 3000, Deadlines: &deploymentv1.Deadlines{Stop: durationpb.New(time.Minute)}}
}

func live() []proto.Message {
	return []proto.Message{
		&deploymentv1.DeploymentRequested{DeploymentId: "d", AppId: "app", Release: release("r1", 1)},
		&deploymentv1.DeploymentScheduled{ReleaseId: "r1", Placements: []*deploymentv1.Placement{{InstanceId: "i1", NodeId: "n"}}},
		&deploymentv1.ContainerStarted{ReleaseId: "r1", InstanceId: "i1", Attempt: 1},
		&deploymentv1.InstanceHealthy{ReleaseId: "r1", InstanceId: "i1", Attempt: 1},
		&deploymentv1.RouteBound{ReleaseId: "r1", InstanceIds: []string{"i1"}},
		&deploymentv1.DeploymentRunning{ReleaseId: "r1"},
	}
}

func TestStories(t *testing.T) {
	t.Parallel()
	crashed := func(attempt uint32) proto.Message {
		return &deploymentv1.ContainerExited{ReleaseId: "r1", InstanceId: "i1", Attempt: attempt, ExitCode: 1, LastLines: []string{"boom"}, RestartAt: timestamppb.Now()}
	}
	back := func(attempt uint32) []proto.Message {
		return []proto.Message{&deploymentv1.ContainerStarted{ReleaseId: "r1", InstanceId: "i1", Attempt: attempt},
			&deploymentv1.InstanceHealthy{ReleaseId: "r1", InstanceId: "i1", Attempt: attempt}}
	}
	moved := func(from, to string, lost bool) proto.Message {
		return &deploymentv1.InstancesRescheduled{ReleaseId: "r1", NodeLost: lost, Reason: "why", ReplacedInstanceIds: []string{from},
			Placements: []*deploymentv1.Placement{{InstanceId: to, NodeId: "m"}}}
	}
	there := func(instance string) []proto.Message {
		return []proto.Message{&deploymentv1.ContainerStarted{ReleaseId: "r1", InstanceId: instance, Attempt: 1},
			&deploymentv1.InstanceHealthy{ReleaseId: "r1", InstanceId: instance, Attempt: 1}}
	}
	for _, tc := range []struct {
		name   string
		events []proto.Message
		want   []string
	}{
		{"a deploy", live(), []string{"create completed by=app", "deploy completed by="}},
		{"on its way", live()[:3], []string{"create completed by=app", "deploy started by="}},
		{"waiting for room", []proto.Message{live()[0], &deploymentv1.PlacementDeferred{ReleaseId: "r1", Reason: "full"}},
			[]string{"create completed by=app", "deploy started by= waiting"}},
		{"a restart", append(live(), &deploymentv1.RestartRequested{Release: release("r2", 2), InitiatedBy: "cli"},
			&deploymentv1.DeploymentScheduled{ReleaseId: "r2"}, &deploymentv1.RouteBound{ReleaseId: "r2"}, &deploymentv1.DeploymentRunning{ReleaseId: "r2"}),
			[]string{"create completed by=app", "deploy completed by=", "restart completed by=cli"}},
		{"a rollback", append(live(), &deploymentv1.RollbackRequested{Release: release("r2", 2), FromReleaseNumber: 1, InitiatedBy: "cli"},
			&deploymentv1.DeploymentScheduled{ReleaseId: "r2"}, &deploymentv1.RouteBound{ReleaseId: "r2"}, &deploymentv1.DeploymentRunning{ReleaseId: "r2"}),
			[]string{"create completed by=app", "deploy completed by=", "rollback completed by=cli image,release,to_release"}},
		{"a scale", append(live(), &deploymentv1.ScaleRequested{ReleaseId: "r1", Count: 3, InitiatedBy: "cli"}, &deploymentv1.DeploymentScaled{ReleaseId: "r1", Count: 3}),
			[]string{"create completed by=app", "deploy completed by=", "scale completed by=cli from,to"}},
		{"a scale that waits and then fails", append(live(), &deploymentv1.ScaleRequested{ReleaseId: "r1", Count: 3, InitiatedBy: "cli"},
			&deploymentv1.PlacementDeferred{ReleaseId: "r1", Reason: "full"}, &deploymentv1.ScaleFailed{ReleaseId: "r1", Count: 3, RestoredCount: 1, Code: "placement_timeout", Reason: "full"}),
			[]string{"create completed by=app", "deploy completed by=", "scale failed by=cli from,towaitingcode,reason,restored"}},
		{"a scale that another one replaces and a stop ends", append(live(), &deploymentv1.ScaleRequested{ReleaseId: "r1", Count: 3, InitiatedBy: "cli"},
			&deploymentv1.ScaleRequested{ReleaseId: "r1", Count: 2, InitiatedBy: "cli"}, &deploymentv1.StopRequested{InitiatedBy: "cli"}),
			[]string{"create completed by=app", "deploy completed by=", "scale failed by=cli from,tocode,reason", "scale failed by=cli from,tocode,reason", "stop started by=cli"}},
		{"a restart that fails", append(live(), &deploymentv1.RestartRequested{Release: release("r2", 2), InitiatedBy: "cli"},
			&deploymentv1.ReleaseFailed{ReleaseId: "r2", Code: "health_timeout", Reason: "no", LastLines: []string{"x"}}),
			[]string{"create completed by=app", "deploy completed by=", "restart failed by=cli code,last_lines,reason"}},
		{"the last words of a release that failed", append(live()[:3], &deploymentv1.ReleaseFailed{ReleaseId: "r1", Code: "health_timeout"},
			&deploymentv1.ContainerExited{ReleaseId: "r1", InstanceId: "i1", Attempt: 1, LastLines: []string{"x"}}),
			[]string{"create completed by=app", "deploy failed by= code,reasonlast_lines"}},
		{"stop", append(live(), &deploymentv1.StopRequested{InitiatedBy: "cli"}, &deploymentv1.DeploymentStopped{}),
			[]string{"create completed by=app", "deploy completed by=", "stop completed by=cli"}},
		{"a stop that cancels a deploy", append(live()[:3], &deploymentv1.StopRequested{InitiatedBy: "cli"}),
			[]string{"create completed by=app", "deploy failed by= code,reason", "stop started by=cli"}},
		{"destroy", append(live(), &deploymentv1.DestroyRequested{InitiatedBy: "cli"}, &deploymentv1.DeploymentDestroyed{}),
			[]string{"create completed by=app", "deploy completed by=", "destroy completed by=cli"}},
		{"a destroy that overtakes a stop", append(live(), &deploymentv1.StopRequested{InitiatedBy: "cli"}, &deploymentv1.DestroyRequested{InitiatedBy: "cli"}),
			[]string{"create completed by=app", "deploy completed by=", "stop failed by=cli code,reason", "destroy started by=cli"}},
		{"a crash that gets well", append(append(live(), crashed(1)), back(2)...),
			[]string{"create completed by=app", "deploy completed by=", "restart completed by= exit_code,last_lines,oom_killed,reason"}},
		{"a crash loop", append(live(), crashed(1), back(2)[0], crashed(2)),
			[]string{"create completed by=app", "deploy completed by=", "restart failed by= exit_code,last_lines,oom_killed,reason", "restart started by= exit_code,last_lines,oom_killed,reason"}},
		{"a crash told twice", append(live(), crashed(1), crashed(1)),
			[]string{"create completed by=app", "deploy completed by=", "restart started by= exit_code,last_lines,oom_killed,reason"}},
		{"its node is lost", append(append(live(), moved("i1", "i2", true)), there("i2")...),
			[]string{"create completed by=app", "deploy completed by=", "restart completed by= from_node,reason,to_node"}},
		{"a lost node returns and tells the last words of what it kept", append(live(), moved("i1", "i2", true),
			&deploymentv1.ContainerExited{ReleaseId: "r1", InstanceId: "i1", Attempt: 1, LastLines: []string{"x"}}),
			[]string{"create completed by=app", "deploy completed by=", "restart started by= from_node,reason,to_node"}},
		{"the next node is lost too", append(append(live(), moved("i1", "i2", true), moved("i2", "i3", true)), there("i3")...),
			[]string{"create completed by=app", "deploy completed by=", "restart failed by= from_node,reason,to_nodemoved_on", "restart completed by= from_node,reason,to_node"}},
		{"its node is lost while it crashes", append(live(), crashed(1), moved("i1", "i2", true)),
			[]string{"create completed by=app", "deploy completed by=", "restart failed by= exit_code,last_lines,oom_killed,reason", "restart started by= from_node,reason,to_node"}},
		{"a move that a stop ends", append(live(), moved("i1", "i2", false), &deploymentv1.StopRequested{InitiatedBy: "cli"}),
			[]string{"create completed by=app", "deploy completed by=", "restart failed by= from_node,reason,to_nodecanceled,code", "stop started by=cli"}},
		{"a deploy whose node is lost", append(live()[:3], moved("i1", "i2", true)),
			[]string{"create completed by=app", "deploy started by= moved"}},
		{"a change of the ingress", append(live(), &deploymentv1.IngressConfigured{InitiatedBy: "cli"}),
			[]string{"create completed by=app", "deploy completed by=", "ingress completed by=cli compression,drain_seconds,maintenance,max_request_bytes,request_timeout_seconds,sticky"}},
		{"an asked-for exit is no crash", append(live(), &deploymentv1.StopRequested{InitiatedBy: "cli"}, crashed(1)),
			[]string{"create completed by=app", "deploy completed by=", "stop started by=cli"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := fold(tc.events...); !slices.Equal(got, tc.want) {
				t.Errorf("the log is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}
