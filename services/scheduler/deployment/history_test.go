package deployment_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

func pulled(release, instance, digest string) *deploymentv1.ImagePulled {
	return &deploymentv1.ImagePulled{ReleaseId: release, InstanceId: instance, Digest: digest}
}

func withEnv(value string) *deploymentv1.SealedEnv {
	return &deploymentv1.SealedEnv{Names: []string{"MODE"}, Ciphertext: []byte(value)}
}

// ran is the end of a rollout that goes well.
func ran(release, instance, digest string) []proto.Message {
	return []proto.Message{scheduled(release, instance), pulled(release, instance, digest), started(release, instance, 1),
		healthy(release, instance, 1), bound(release, instance), &deploymentv1.DeploymentRunning{ReleaseId: release}}
}

// twice is a deployment whose second release serves, with another image and environment.
func twice() *story {
	first, second := requested(), restarted()
	first.Release.Env, second.Release.Env = withEnv("one"), withEnv("two")
	return given(first).and(ran("r1", "i1", "sha256:1")...).and(second).and(ran("r2", "i2", "sha256:2")...)
}

func TestARollbackIsANewReleaseOfWhatTheOldOneWas(t *testing.T) {
	t.Parallel()
	s := twice()
	e := s.decide(t, deployment.Rollback{ReleaseID: "r3", ContainerName: "my-app-3", By: "op"}).(*deploymentv1.RollbackRequested)
	if r := e.Release; e.FromReleaseNumber != 1 || r.Number != 3 || r.Id != "r3" || r.Digest != "sha256:1" || string(r.Env.Ciphertext) != "one" || r.ContainerName != "my-app-3" {
		t.Fatalf("rolled back to %v", e)
	}
	s.and(e, scheduled("r3", "i3"))
	if d := deployment.Desired(s.state)["n1.i3"]; d.Digest != "sha256:1" {
		t.Errorf("the tag is pulled, not the digest: %q", d.Digest)
	}
	s.and(ran("r3", "i3", "sha256:1")[1:]...)
	s.wants(t, deployment.Running, deployment.HealthHealthy, "")
	told := ""
	for _, r := range deployment.Releases(s.state) {
		told += fmt.Sprintf("%d %s v%d %s from %d; ", r.Number, r.Status, r.ConfigNumber, r.Digest, r.RolledBackTo)
	}
	if want := "3 active v1 sha256:1 from 1; 2 superseded v2 sha256:2 from 0; 1 superseded v1 sha256:1 from 0; "; told != want {
		t.Errorf("the history is\n%s, want\n%s", told, want)
	}
	// A restart of it stays what was rolled back to.
	again := s.decide(t, deployment.Restart{ReleaseID: "r4"}).(*deploymentv1.RestartRequested)
	if again.Release.Digest != "sha256:1" || string(again.Release.Env.Ciphertext) != "one" || again.Release.Number != 4 {
		t.Errorf("restarted: %v", again.Release)
	}
}

func TestARollbackThatFailsLeavesWhatServed(t *testing.T) {
	t.Parallel()
	s := twice()
	s.and(s.decide(t, deployment.Rollback{ReleaseID: "r3"}), scheduled("r3", "i3"), &deploymentv1.ReleaseFailed{ReleaseId: "r3", Code: "image_pull_failed", Reason: "Gone."})
	s.wants(t, deployment.Running, deployment.HealthHealthy, "the former release goes on serving")
	if status := deployment.Releases(s.state)[0].Status; status != "failed" {
		t.Errorf("it is %s", status)
	}
	again := s.decide(t, deployment.Restart{ReleaseID: "r4"}).(*deploymentv1.RestartRequested)
	if again.Release.Number != 4 || string(again.Release.Env.Ciphertext) != "two" || again.Release.Digest != "" {
		t.Errorf("a restart starts from what failed: %v", again.Release)
	}
	if _, err := deployment.Decide(s.state, deployment.Rollback{Number: 3}, t0); err == nil || !strings.Contains(err.Error(), "never ran") {
		t.Errorf("rolled back to what never ran: %v", err)
	}
}

func TestWhatCannotBeRolledBackToIsRefusedWithASentence(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		s      *story
		number int64
		says   string
	}{
		{"the first release has none before", live(), 0, "no release ran before"},
		{"an unknown one", twice(), 7, "no release 7"},
		{"a negative one", twice(), -1, "no release -1"},
		{"the one that runs", twice(), 2, "the one that runs"},
		{"during a rollout", live().and(restarted()), 0, "a rollout is under way"},
		{"destroyed", twice().and(&deploymentv1.DestroyRequested{}), 1, "destroyed"},
	} {
		e, err := deployment.Decide(tc.s.state, deployment.Rollback{Number: tc.number, ReleaseID: "r9"}, t0)
		if e != nil || problem.From(err).Code != problem.CodeInvalidState || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, %v", tc.name, e, err)
		}
	}
	stopped := twice().and(&deploymentv1.StopRequested{}, &deploymentv1.DeploymentStopped{})
	if e := stopped.decide(t, deployment.Rollback{ReleaseID: "r3"}).(*deploymentv1.RollbackRequested); e.FromReleaseNumber != 1 {
		t.Errorf("stopped, it rolls back to %d", e.FromReleaseNumber)
	}
}

func TestTheHistoryIsBoundedAndKeepsTheReleaseThatServes(t *testing.T) {
	t.Parallel()
	s := twice()
	older := s.state
	for n := range deployment.MaxHistory + 10 {
		id := fmt.Sprint("x", n)
		next := s.decide(t, deployment.Restart{ReleaseID: id})
		s.and(next, &deploymentv1.ReleaseFailed{ReleaseId: id, Code: "crashed", Reason: "No."})
	}
	if len(s.state.History) != deployment.MaxHistory || s.state.History[0].ID != "r2" || s.state.History[1].Number != 14 {
		t.Errorf("%d are remembered, first %v", len(s.state.History), s.state.History[:2])
	}
	if len(older.History) != 2 || older.History[1].Failed {
		t.Errorf("an older state has changed: %v", older.History)
	}
}
