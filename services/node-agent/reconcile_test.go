package nodeagent_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
	"github.com/slipway-paas/slipway/services/node-agent/runtime/fake"
)

const (
	draining = nodev1.DesiredState_DESIRED_STATE_DRAINING
	removed  = nodev1.DesiredState_DESIRED_STATE_REMOVED
)

func withEnv(d *nodev1.DesiredInstance) { d.HasEnv = true }

func attempts(n uint32) func(*nodev1.DesiredInstance) {
	return func(d *nodev1.DesiredInstance) { d.MaxAttempts = n }
}

func TestAWishBecomesARunningContainer(t *testing.T) {
	story(t, func(w *world) {
		if err := w.agent.Ready(); err != nil {
			t.Fatal(err)
		}
		w.run("a")
		w.expect("ImagePulled a", "ContainerStarted a attempt 1")
		started := w.facts.last().Payload.(*deploymentv1.ContainerStarted)
		c := w.machine.Containers()[w.container()]
		if started.GetAddress() != c.Address || started.GetContainerId() != c.ID || started.GetNodeId() != "node-1" {
			t.Fatalf("recorded %v of %+v", started, c)
		}
		w.wait(10 * time.Minute)
		w.expect()
	})
}

func TestTheEnvironmentIsAskedForOnlyWhenThereIsOne(t *testing.T) {
	story(t, func(w *world) {
		w.secrets.set(map[string]string{"KEY": "value"}, errAway, false)
		w.run("a", withEnv)
		w.wait(10 * time.Second)
		w.expect("ImagePulled a")
		w.secrets.set(map[string]string{"KEY": "value"}, nil, false)
		w.wait(time.Minute)
		w.expect("ContainerStarted a attempt 1")
		if env := w.machine.Env(w.container()); env["KEY"] != "value" {
			t.Fatalf("env = %v", env)
		}
	})
}

func TestARefusedEnvironmentFailsTheStart(t *testing.T) {
	story(t, func(w *world) {
		w.secrets.set(nil, nil, true)
		w.run("a", withEnv, attempts(2))
		w.wait(time.Hour)
		w.expect("ImagePulled a", "ContainerStartFailed a attempt 1", "ContainerStartFailed a attempt 2")
	})
}

func TestAnImageThatIsNotThereIsTriedOnce(t *testing.T) {
	story(t, func(w *world) {
		w.run("a", func(d *nodev1.DesiredInstance) { d.Image = "registry.test/acme/none:v1" }, attempts(3))
		w.wait(time.Hour)
		w.expect("ImagePullFailed a attempt 1 final true")
	})
}

func TestALiveReleaseWhoseImageIsGoneIsPulledForForAsLongAsItTakes(t *testing.T) {
	story(t, func(w *world) {
		w.run("a", func(d *nodev1.DesiredInstance) { d.Image = "registry.test/acme/none:v1" })
		w.wait(2500 * time.Millisecond)
		w.expect("ImagePullFailed a attempt 1 final false", "ImagePullFailed a attempt 2 final false")
	})
}

func TestAnAgentWithoutMemoryGoesOnCountingFromTheLog(t *testing.T) {
	story(t, func(w *world) {
		w.run("a", func(d *nodev1.DesiredInstance) { d.LastAttempt = 3 })
		w.expect("ImagePulled a", "ContainerStarted a attempt 4")
	})
}

func TestARegistryThatComesBackIsPulledFrom(t *testing.T) {
	story(t, func(w *world) {
		w.machine.SetFaults(fake.Faults{RegistryDown: true})
		w.run("a")
		w.wait(2 * time.Second)
		w.expect("ImagePullFailed a attempt 1 final false", "ImagePullFailed a attempt 2 final false")
		w.machine.SetFaults(fake.Faults{})
		w.wait(2 * time.Second)
		w.expect("ImagePulled a", "ContainerStarted a attempt 1")
	})
}

func TestACrashIsRecordedAndRestartedWithGrowingPauses(t *testing.T) {
	story(t, func(w *world) {
		w.secrets.set(map[string]string{"MODE": "exit", "CODE": "3", "LINES": "30"}, nil, false)
		w.run("a", withEnv)
		w.expect("ImagePulled a", "ContainerStarted a attempt 1", "ContainerExited a attempt 1 code 3 oom false restart in 1s")
		if lines := w.facts.last().Payload.(*deploymentv1.ContainerExited).GetLastLines(); len(lines) != 20 || lines[19] != "line 30" {
			t.Fatalf("last lines = %q", lines)
		}
		w.wait(3 * time.Second)
		w.expect(
			"ContainerStarted a attempt 2", "ContainerExited a attempt 2 code 3 oom false restart in 2s",
			"ContainerStarted a attempt 3", "ContainerExited a attempt 3 code 3 oom false restart in 4s")
		w.wait(time.Hour)
		if told := w.told(); !strings.Contains(told, "restart in 1m0s") || strings.Contains(told, "restart in 2m") {
			t.Fatalf("the pause is not bounded by a minute:\n%s", told)
		}
	})
}

func TestARestartAfterSteadyRunningIsQuickAgain(t *testing.T) {
	story(t, func(w *world) {
		w.secrets.set(map[string]string{"MODE": "exit", "CODE": "1", "AFTER": "6m"}, nil, false)
		w.run("a", withEnv)
		w.wait(20 * time.Minute)
		told := w.told()
		if strings.Count(told, "restart in 1s") != 3 || strings.Contains(told, "restart in 2s") {
			t.Fatalf("recorded:\n%s", told)
		}
	})
}

func TestANewReleaseThatCrashesIsGivenUpAfterItsAttempts(t *testing.T) {
	story(t, func(w *world) {
		w.secrets.set(map[string]string{"MODE": "oom"}, nil, false)
		w.run("a", withEnv, attempts(3))
		w.wait(time.Hour)
		w.expect("ImagePulled a",
			"ContainerStarted a attempt 1", "ContainerExited a attempt 1 code 137 oom true restart in 500ms",
			"ContainerStarted a attempt 2", "ContainerExited a attempt 2 code 137 oom true restart in 1s",
			"ContainerStarted a attempt 3", "ContainerExited a attempt 3 code 137 oom true stays down")
	})
}

func TestAContainerThatCannotBeStartedIsRetried(t *testing.T) {
	story(t, func(w *world) {
		w.machine.SetFaults(fake.Faults{FailStarts: 1})
		w.run("a")
		w.wait(time.Minute)
		w.expect("ImagePulled a", "ContainerStartFailed a attempt 1", "ContainerStarted a attempt 2")
		if w.running() != 1 || len(w.machine.Containers()) != 1 {
			t.Fatalf("containers: %v", w.machine.Containers())
		}
	})
}

func TestDrainingWaitsThenStopsThenRemoves(t *testing.T) {
	story(t, func(w *world) {
		w.secrets.set(map[string]string{"MODE": "stubborn"}, nil, false)
		w.run("a", withEnv)
		w.told()
		w.wish("a", draining, withEnv)
		w.wait(4 * time.Second)
		if w.running() != 1 {
			t.Fatal("stopped before it was drained")
		}
		w.wait(10 * time.Second)
		if w.running() != 1 {
			t.Fatal("killed before its grace was over")
		}
		w.wait(2 * time.Second)
		w.expect("ContainerExited a attempt 1 code 137 oom false stays down", "ContainerRemoved a")
		if len(w.machine.Containers()) != 0 {
			t.Fatal("it is still there")
		}
		w.desired.drop("a")
		w.wait(time.Hour)
		w.expect()
	})
}

func TestRemovingInterruptsAPull(t *testing.T) {
	story(t, func(w *world) {
		w.machine.SetFaults(fake.Faults{PullDelay: time.Hour})
		w.run("a")
		w.wait(time.Second)
		w.wish("a", removed)
		w.expect("ContainerRemoved a")
		w.wait(2 * time.Hour)
		w.expect()
	})
}

func TestAContainerNobodyWishesForGoes(t *testing.T) {
	story(t, func(w *world) {
		w.run("a")
		w.run("b")
		w.told()
		w.endAgent()
		w.desired.drop("a")
		w.startAgent()
		w.expect("ContainerRemoved a")
		if w.running() != 1 {
			t.Fatalf("containers: %v", w.machine.Containers())
		}
	})
}

func TestAContainerThatWasMadeUnheardGoesThoughItNeverRan(t *testing.T) {
	story(t, func(w *world) {
		image, err := w.runtime.Pull(t.Context(), image)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.runtime.Create(t.Context(), runtime.Spec{Name: "shop-lost", Image: image.ID, Labels: map[string]string{
			runtime.LabelOrg: "acme", runtime.LabelDeployment: "shop", runtime.LabelRelease: "r1", runtime.LabelInstance: "lost", runtime.LabelAttempt: "1",
		}}); err != nil {
			t.Fatal(err)
		}
		w.wait(time.Minute + time.Second)
		if left := w.machine.Containers(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestAnotherOwnersContainersAreLeftAlone(t *testing.T) {
	story(t, func(w *world) {
		other := w.machine.Runtime("somebody-else")
		pulled, err := other.Pull(w.t.Context(), image)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Create(w.t.Context(), runtime.Spec{Name: "theirs", Image: pulled.ID, Labels: map[string]string{runtime.LabelInstance: "a"}}); err != nil {
			t.Fatal(err)
		}
		w.wait(time.Hour)
		w.expect()
		w.container()
	})
}

func TestAnAgentThatComesBackSaysTheSameAndActsOnWhatItMissed(t *testing.T) {
	story(t, func(w *world) {
		w.run("steady")
		w.run("crashes")
		w.told()
		w.endAgent()
		for id, c := range w.machine.Containers() {
			if c.Labels[runtime.LabelInstance] == "crashes" {
				w.machine.Crash(id, 9)
			}
		}
		w.wait(10 * time.Second)
		w.startAgent()
		w.wait(time.Minute)
		w.expect("ContainerExited crashes attempt 1 code 9 oom false restart in 1s", "ContainerStarted crashes attempt 2")
	})
}

func TestAStartThatIsInTheLogIsNotSaidAgainByALaterAgent(t *testing.T) {
	story(t, func(w *world) {
		inLog := func(container string) func(*nodev1.DesiredInstance) {
			return func(d *nodev1.DesiredInstance) { d.LastAttempt, d.LastContainerId = 1, container }
		}
		w.run("a")
		w.told()
		for _, later := range []struct {
			known string
			says  []string
		}{{w.container(), nil}, {"one of before", []string{"ContainerStarted a attempt 1"}}} {
			w.endAgent()
			w.facts.forget()
			w.run("a", inLog(later.known))
			w.startAgent()
			w.expect(later.says...)
		}
	})
}

func TestAContainerThatWasMadeButNotStartedIsMadeAnew(t *testing.T) {
	story(t, func(w *world) {
		w.endAgent()
		pulled, err := w.runtime.Pull(w.t.Context(), image)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.runtime.Create(w.t.Context(), runtime.Spec{Name: "shop-a", Image: pulled.ID, Labels: map[string]string{
			runtime.LabelOrg: "acme", runtime.LabelDeployment: "shop", runtime.LabelInstance: "a", runtime.LabelAttempt: "4",
		}}); err != nil {
			t.Fatal(err)
		}
		w.run("a")
		w.startAgent()
		w.expect("ContainerStarted a attempt 4")
		if w.running() != 1 || len(w.machine.Containers()) != 1 {
			t.Fatalf("containers: %v", w.machine.Containers())
		}
	})
}

func TestAContainerWithoutItsLabelsHoldsUpNothing(t *testing.T) {
	story(t, func(w *world) {
		w.endAgent()
		pulled, err := w.runtime.Pull(w.t.Context(), image)
		if err != nil {
			t.Fatal(err)
		}
		for n, labels := range []map[string]string{{}, {runtime.LabelInstance: "lost"}} {
			if _, err := w.runtime.Create(w.t.Context(), runtime.Spec{Name: fmt.Sprint("odd", n), Image: pulled.ID, Labels: labels}); err != nil {
				t.Fatal(err)
			}
		}
		w.startAgent()
		w.run("a")
		w.expect("ImagePulled a", "ContainerStarted a attempt 1")
	})
}

func TestAContainerRemovedByHandComesBack(t *testing.T) {
	story(t, func(w *world) {
		w.run("a")
		w.told()
		w.machine.RemoveBehindBack(w.container())
		w.wait(time.Minute)
		w.expect("ContainerExited a attempt 1 code 137 oom false restart in 1s", "ContainerStarted a attempt 2")
	})
}

func TestARuntimeThatDiesAndComesBackIsComparedAnew(t *testing.T) {
	story(t, func(w *world) {
		w.run("a")
		w.told()
		w.machine.SetFaults(fake.Faults{Down: true})
		w.machine.BreakEvents()
		w.run("b")
		w.machine.Crash(w.container(), 1)
		w.wait(time.Minute)
		w.machine.SetFaults(fake.Faults{})
		w.wait(2 * time.Minute)
		told := w.told()
		for _, want := range []string{"ContainerExited a attempt 1", "ContainerStarted a attempt 2", "ContainerStarted b attempt 1"} {
			if !strings.Contains(told, want) {
				t.Fatalf("%q is missing in:\n%s", want, told)
			}
		}
		if w.running() != 2 {
			t.Fatalf("%d run", w.running())
		}
	})
}

func TestFactsWaitForTheLogInOrder(t *testing.T) {
	story(t, func(w *world) {
		w.facts.setDown(true)
		w.run("a")
		w.machine.Crash(w.container(), 1)
		w.wait(time.Minute)
		w.expect()
		w.facts.setDown(false)
		w.wait(10 * time.Second)
		w.expect("ImagePulled a", "ContainerStarted a attempt 1",
			"ContainerExited a attempt 1 code 1 oom false restart in 1s", "ContainerStarted a attempt 2")
	})
}

func TestStoppedAppsStartAgainWithTheNextRun(t *testing.T) {
	story(t, func(w *world) {
		w.run("a")
		w.told()
		if err := w.agent.StopApps(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		w.wait(time.Minute)
		if w.running() != 0 {
			t.Fatal("it still runs")
		}
		w.endAgent()
		w.startAgent()
		w.expect("ContainerStarted a attempt 2")
		w.wait(time.Hour)
		w.expect()
	})
}

func TestManyAtOnceAllRun(t *testing.T) {
	story(t, func(w *world) {
		w.machine.SetFaults(fake.Faults{PullDelay: time.Second, FailCreates: 5})
		for n := range 100 {
			w.run(fmt.Sprintf("i%d", n))
		}
		w.wait(5 * time.Minute)
		if w.running() != 100 {
			t.Fatalf("%d run", w.running())
		}
	})
}

func TestTheNodeSaysThatItLives(t *testing.T) {
	story(t, func(w *world) {
		w.wait(10 * time.Second)
		beats := w.nodes.seen()
		if len(beats) < 5 || len(beats) > 7 {
			t.Fatalf("%d heartbeats in 10 s", len(beats))
		}
		if n := beats[0]; n.GetNodeId() != "node-1" || n.GetMemoryMb() != 8<<10-512 || n.GetCpuMillicores() != 4000 {
			t.Fatalf("heartbeat = %v", n)
		}
	})
}
