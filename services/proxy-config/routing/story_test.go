package routing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/proxy-config/routing"
)

const (
	host = "shop.apps.test"
)

// story is given-when-then over one fold: what happened, what is routed, what is due.
type story struct {
	t    *testing.T
	fold *routing.Fold
	last uint64
}

func given(t *testing.T, events ...proto.Message) *story {
	t.Helper()
	return (&story{t: t, fold: routing.New()}).when(events...)
}

// when folds events of the deployment d1.
func (s *story) when(events ...proto.Message) *story { return s.of("d1", events...) }

func (s *story) of(id string, events ...proto.Message) *story {
	return s.folds(subjects.Of("acme", subjects.Deployment, id), events...)
}

func (s *story) folds(whose subjects.Aggregate, events ...proto.Message) *story {
	for _, e := range events {
		s.last++
		s.fold.Apply(eventstore.Recorded{Sequence: s.last, Event: eventstore.Event{
			Aggregate: whose, Payload: e,
			ID: fmt.Sprintf("e%d", s.last), Time: time.Unix(int64(s.last), 0),
		}})
	}
	return s
}

// routed checks a host's route, written as "STATE deployment release upstream…";
// "none" for no route.
func (s *story) routed(host, want string) *story {
	s.t.Helper()
	got := "none"
	if r := s.fold.Wanted(host); r != nil {
		words := []string{strings.TrimPrefix(r.GetState().String(), "ROUTE_STATE_"), r.GetDeploymentId()}
		if len(r.GetUpstreams()) > 0 {
			words = append(words, r.GetReleaseId())
		}
		for _, u := range r.GetUpstreams() {
			words = append(words, u.GetInstanceId()+"="+u.GetAddress())
		}
		got = strings.Join(words, " ")
		if r.GetSequence() == 0 || r.GetSequence() > s.last || r.GetHost() != host || r.GetOrgId() != "acme" {
			s.t.Errorf("route of %s is incomplete: %v", host, r)
		}
	}
	if got != want {
		s.t.Errorf("%s goes to %q, want %q", host, got, want)
	}
	return s
}

// due checks what is to be recorded of d1: "bound release hosts instances",
// "removed hosts" or "nothing".
func (s *story) due(want string) *story {
	s.t.Helper()
	got := "nothing"
	fact, ok := s.fold.Due("d1")
	switch {
	case ok && fact.Bound != nil:
		got = fmt.Sprint("bound ", fact.Bound.GetReleaseId(), fact.Bound.GetHosts(), fact.Bound.GetInstanceIds())
	case ok:
		got = fmt.Sprint("removed ", fact.Removed.GetHosts())
	}
	if got != want {
		s.t.Errorf("due is %q, want %q", got, want)
	}
	return s
}

// recorded folds the fact that is due.
func (s *story) recorded() *story {
	s.t.Helper()
	fact, ok := s.fold.Due("d1")
	if !ok {
		s.t.Fatal("nothing is due")
	}
	return s.when(fact.Payload(s.last))
}

func requested() *deploymentv1.DeploymentRequested {
	return &deploymentv1.DeploymentRequested{DeploymentId: "d1", OrgId: "acme", Host: host, Release: release("r1", 1)}
}

func release(id string, number uint32) *deploymentv1.Release {
	return &deploymentv1.Release{Id: id, Number: number}
}

func restart(id string, number uint32) *deploymentv1.RestartRequested {
	return &deploymentv1.RestartRequested{Release: release(id, number)}
}

func scheduled(release string, instances ...string) *deploymentv1.DeploymentScheduled {
	e := &deploymentv1.DeploymentScheduled{ReleaseId: release}
	for _, i := range instances {
		e.Placements = append(e.Placements, &deploymentv1.Placement{InstanceId: i, NodeId: "n1"})
	}
	return e
}

func started(release, instance string, attempt uint32) *deploymentv1.ContainerStarted {
	return &deploymentv1.ContainerStarted{ReleaseId: release, InstanceId: instance, Attempt: attempt,
		ContainerId: fmt.Sprint(instance, "-", attempt), Address: fmt.Sprint("10.0.0.", attempt, ":80")}
}

func healthy(release, instance string, attempt uint32) *deploymentv1.InstanceHealthy {
	return &deploymentv1.InstanceHealthy{ReleaseId: release, InstanceId: instance, Attempt: attempt}
}

func unhealthy(release, instance string, attempt uint32) *deploymentv1.InstanceUnhealthy {
	return &deploymentv1.InstanceUnhealthy{ReleaseId: release, InstanceId: instance, Attempt: attempt}
}

func exited(release, instance string, attempt uint32) *deploymentv1.ContainerExited {
	return &deploymentv1.ContainerExited{ReleaseId: release, InstanceId: instance, Attempt: attempt}
}

func running(release string, retired ...string) *deploymentv1.DeploymentRunning {
	return &deploymentv1.DeploymentRunning{ReleaseId: release, RetiredInstanceIds: retired}
}

func failed(release string) *deploymentv1.ReleaseFailed {
	return &deploymentv1.ReleaseFailed{ReleaseId: release}
}

// serving is d1 with release r1 live on instance i1, and the log says so.
func serving(t *testing.T) *story {
	t.Helper()
	return given(t, requested(), scheduled("r1", "i1"), started("r1", "i1", 1), healthy("r1", "i1", 1)).
		recorded().when(running("r1")).due("nothing")
}

// rollingOut is serving with release r2 started on i2, not healthy yet.
func rollingOut(t *testing.T) *story {
	t.Helper()
	return serving(t).when(restart("r2", 2), scheduled("r2", "i2"), started("r2", "i2", 2))
}

// everyEvent are the names of all events of a deployment, from the schema.
func everyEvent() []string {
	var names []string
	parts := []string{"Tier", "SealedEnv", "HealthCheck", "Deadlines", "Release", "Placement"}
	messages := deploymentv1.File_slipway_deployment_v1_events_proto.Messages()
	for i := range messages.Len() {
		if name := string(messages.Get(i).Name()); !slices.Contains(parts, name) {
			names = append(names, name)
		}
	}
	return names
}
