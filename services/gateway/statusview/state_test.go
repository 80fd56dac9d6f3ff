package statusview_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/services/gateway/statusview"
)

// The steps of a story, release r with instance i.
func requested() proto.Message {
	return &deploymentv1.DeploymentRequested{DeploymentId: "d", OrgId: "o", OperatorId: "p", Subdomain: "app", Release: &deploymentv1.Release{Id: "r1"}}
}
func restart(r string) proto.Message {
	return &deploymentv1.RestartRequested{Release: &deploymentv1.Release{Id: r}}
}
func scheduled(r, i string) proto.Message {
	return &deploymentv1.DeploymentScheduled{ReleaseId: r, Placements: []*deploymentv1.Placement{{InstanceId: i}}}
}
func started(r, i string, attempt uint32) proto.Message {
	return &deploymentv1.ContainerStarted{ReleaseId: r, InstanceId: i, Attempt: attempt}
}
func healthy(r, i string, attempt uint32) proto.Message {
	return &deploymentv1.InstanceHealthy{ReleaseId: r, InstanceId: i, Attempt: attempt}
}
func unhealthy(r, i string, attempt uint32) proto.Message {
	return &deploymentv1.InstanceUnhealthy{ReleaseId: r, InstanceId: i, Attempt: attempt}
}
func exited(r, i string, attempt uint32) proto.Message {
	return &deploymentv1.ContainerExited{ReleaseId: r, InstanceId: i, Attempt: attempt}
}
func running(r string) proto.Message { return &deploymentv1.DeploymentRunning{ReleaseId: r} }
func failed(r string) proto.Message  { return &deploymentv1.ReleaseFailed{ReleaseId: r} }

func moved(r, from, to string, lost bool) proto.Message {
	return &deploymentv1.InstancesRescheduled{ReleaseId: r, ReplacedInstanceIds: []string{from}, NodeLost: lost, Placements: []*deploymentv1.Placement{{InstanceId: to}}}
}
func retired(r, i string) proto.Message {
	return &deploymentv1.InstancesRetired{ReleaseId: r, InstanceIds: []string{i}}
}

func live() []proto.Message {
	return []proto.Message{
		requested(), scheduled("r1", "i1"), &deploymentv1.ImagePulled{ReleaseId: "r1", InstanceId: "i1"}, started("r1", "i1", 1),
		healthy("r1", "i1", 1), &deploymentv1.RouteBound{ReleaseId: "r1"}, running("r1"),
	}
}

func after(more ...proto.Message) []proto.Message { return append(live(), more...) }

func TestStatusAndHealthAreFolded(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		given          []proto.Message
		status, health string
	}{
		"asked for":                           {live()[:1], "pending", "unknown"},
		"no room":                             {append(live()[:1], &deploymentv1.PlacementDeferred{ReleaseId: "r1"}), "pending", "unknown"},
		"placed":                              {live()[:2], "deploying", "unknown"},
		"started":                             {live()[:4], "deploying", "starting"},
		"healthy but not bound":               {live()[:5], "deploying", "healthy"},
		"live":                                {live(), "running", "healthy"},
		"crashed before it was live":          {append(live()[:4], exited("r1", "i1", 1)), "deploying", "starting"},
		"never healthy":                       {append(live()[:4], failed("r1")), "stopped", "unknown"},
		"unhealthy":                           {after(unhealthy("r1", "i1", 1)), "running", "unhealthy"},
		"healthy again":                       {after(unhealthy("r1", "i1", 1), healthy("r1", "i1", 1)), "running", "healthy"},
		"crashed":                             {after(exited("r1", "i1", 1)), "running", "unhealthy"},
		"started again":                       {after(exited("r1", "i1", 1), started("r1", "i1", 2)), "running", "unhealthy"},
		"and healthy":                         {after(exited("r1", "i1", 1), started("r1", "i1", 2), healthy("r1", "i1", 2)), "running", "healthy"},
		"an old attempt's health is stale":    {after(exited("r1", "i1", 1), started("r1", "i1", 2), healthy("r1", "i1", 1)), "running", "unhealthy"},
		"an old attempt's exit is stale":      {after(exited("r1", "i1", 1), started("r1", "i1", 2), healthy("r1", "i1", 2), exited("r1", "i1", 1)), "running", "healthy"},
		"a start told twice changes nothing":  {after(started("r1", "i1", 1)), "running", "healthy"},
		"health of an exited one is stale":    {after(exited("r1", "i1", 1), healthy("r1", "i1", 1)), "running", "unhealthy"},
		"restart: the old one still serves":   {after(restart("r2"), scheduled("r2", "i2"), started("r2", "i2", 1), unhealthy("r2", "i2", 1)), "deploying", "healthy"},
		"restarted":                           {after(restart("r2"), scheduled("r2", "i2"), started("r2", "i2", 1), healthy("r2", "i2", 1), running("r2")), "running", "healthy"},
		"the old one's end is nobody's":       {after(restart("r2"), scheduled("r2", "i2"), started("r2", "i2", 1), healthy("r2", "i2", 1), running("r2"), exited("r1", "i1", 1), &deploymentv1.ContainerRemoved{ReleaseId: "r1", InstanceId: "i1"}), "running", "healthy"},
		"a restart that failed":               {after(restart("r2"), scheduled("r2", "i2"), failed("r2")), "running", "healthy"},
		"failure of a release that is over":   {after(restart("r2"), failed("r1")), "deploying", "healthy"},
		"running of a release that is over":   {after(restart("r2"), running("r1")), "deploying", "healthy"},
		"stop asked":                          {after(&deploymentv1.StopRequested{}), "running", "healthy"},
		"stopped":                             {after(&deploymentv1.StopRequested{}, &deploymentv1.DeploymentStopped{}), "stopped", "unknown"},
		"facts after the stop change nothing": {after(&deploymentv1.DeploymentStopped{}, healthy("r1", "i1", 1)), "stopped", "unknown"},
		"started by restart":                  {after(&deploymentv1.DeploymentStopped{}, restart("r2"), scheduled("r2", "i2")), "deploying", "unknown"},
		"its node is lost":                    {after(moved("r1", "i1", "i2", true)), "running", "unhealthy"},
		"and it was started elsewhere":        {after(moved("r1", "i1", "i2", true), started("r1", "i2", 1), healthy("r1", "i2", 1)), "running", "healthy"},
		"what a lost node tells is stale":     {after(moved("r1", "i1", "i2", true), started("r1", "i1", 2), healthy("r1", "i1", 2)), "running", "unhealthy"},
		"its node is drained":                 {after(moved("r1", "i1", "i2", false)), "running", "healthy"},
		"drained":                             {after(moved("r1", "i1", "i2", false), started("r1", "i2", 1), healthy("r1", "i2", 1), retired("r1", "i1")), "running", "healthy"},
		"only what stands in counts then":     {after(moved("r1", "i1", "i2", false), started("r1", "i2", 1), healthy("r1", "i2", 1), retired("r1", "i1"), unhealthy("r1", "i2", 1)), "running", "unhealthy"},
		"lost before it was live":             {append(live()[:5], moved("r1", "i1", "i2", true)), "deploying", "unknown"},
		"another release's move":              {after(moved("r0", "i1", "i2", true)), "running", "healthy"},
		"destroy asked":                       {after(&deploymentv1.DestroyRequested{}), "running", "healthy"},
		"destroyed":                           {after(&deploymentv1.DestroyRequested{}, &deploymentv1.DeploymentDestroyed{}), "destroyed", "unknown"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s statusview.State
			for _, e := range c.given {
				s = statusview.Evolve(s, e)
			}
			if s.Status != c.status || s.Health() != c.health {
				t.Errorf("%s and %s, want %s and %s", s.Status, s.Health(), c.status, c.health)
			}
			if s.ID != "d" || s.OrgID != "o" || s.OperatorID != "p" || s.Subdomain != "app" {
				t.Errorf("whose it is was lost: %+v", s)
			}
		})
	}
}

func TestAnOlderStateStaysWhatItWas(t *testing.T) {
	t.Parallel()
	var s statusview.State
	for _, e := range live() {
		s = statusview.Evolve(s, e)
	}
	statusview.Evolve(s, exited("r1", "i1", 1))
	statusview.Evolve(s, &deploymentv1.ContainerRemoved{InstanceId: "i1"})
	if s.Health() != "healthy" {
		t.Error("folding changed the state that it started from")
	}
}

func TestTheNewestCheckIsKept(t *testing.T) {
	t.Parallel()
	at := func(second int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 5, 21, 10, 0, second, 0, time.UTC))
	}
	var s statusview.State
	for _, e := range live() {
		s = statusview.Evolve(s, e)
	}
	if !s.CheckedAt.IsZero() {
		t.Errorf("a check without a time counts as %s", s.CheckedAt)
	}
	s = statusview.Evolve(s, &deploymentv1.InstanceUnhealthy{ReleaseId: "r1", InstanceId: "i1", Attempt: 1, CheckedAt: at(9)})
	s = statusview.Evolve(s, &deploymentv1.InstanceHealthy{ReleaseId: "r1", InstanceId: "i1", Attempt: 1, CheckedAt: at(5)})
	if s.CheckedAt.Second() != 9 {
		t.Errorf("checked at %s, want the newest", s.CheckedAt)
	}
}

// A new event needs a decision: it changes the status (and a case above), or it is
// named here.
func TestEveryEventIsFoldedOrNamed(t *testing.T) {
	t.Parallel()
	known := map[string]string{}
	for _, name := range []string{
		"DeploymentRequested", "RestartRequested", "DeploymentScheduled", "DeploymentRunning", "ReleaseFailed", "DeploymentStopped",
		"DeploymentDestroyed", "ContainerRemoved", "ContainerStarted", "ContainerExited", "InstanceHealthy", "InstanceUnhealthy",
		"InstancesRescheduled", "InstancesRetired", "RollbackRequested", "ScaleRequested", "ScaleFailed",
	} {
		known[name] = "folded"
	}
	for _, name := range []string{
		"DeploymentScaled", "PlacementDeferred", "StopRequested", "DestroyRequested", "IngressConfigured", "ImagePulled", "ImagePullFailed", "ContainerStartFailed", "RouteBound", "RouteRemoved",
	} {
		known[name] = "changes neither status nor health"
	}
	for _, name := range []string{"Tier", "SealedEnv", "HealthCheck", "Deadlines", "Release", "Placement"} {
		known[name] = "is a part of events"
	}
	messages := deploymentv1.File_slipway_deployment_v1_events_proto.Messages()
	for i := range messages.Len() {
		if name := string(messages.Get(i).Name()); known[name] == "" {
			t.Errorf("%s is neither folded nor named", name)
		}
	}
}
