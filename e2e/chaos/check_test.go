package chaos

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/e2e/podman"
	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// scene is a log, a ledger and a world to be held against each other.
type scene struct {
	events    []eventstore.Recorded
	commands  []command
	world     world
	untouched map[string]string
}

const traceA, traceB = "0000000000000001000000000000000a", "0000000000000001000000000000000b"

// event appends one of the deployment d1; an empty id makes one.
func (s *scene) event(aggregate subjects.Aggregate, id, trace string, payload proto.Message) {
	sequence := uint64(len(s.events) + 1)
	if id == "" {
		id = fmt.Sprintf("e%d", sequence)
	}
	s.events = append(s.events, eventstore.Recorded{Sequence: sequence, Event: eventstore.Event{
		Aggregate: aggregate, ID: id, Payload: payload, Time: time.Unix(int64(sequence), 0), TraceParent: "00-" + trace + "-0000000000000001-01",
	}})
}

func (s *scene) says(id, trace string, payload proto.Message) {
	s.event(subjects.Of("acme", subjects.Deployment, "d1"), id, trace, payload)
}

// well is one app that was created and restarted, and all is as it must be.
func well() *scene {
	s := &scene{untouched: map[string]string{"d1": "c1"}}
	s.event(subjects.Of("_", subjects.Claim, "subdomain-1"), "", traceA, &claimv1.ClaimTaken{Kind: "subdomain", Name: "shop", Holder: "deployment/d1"})
	s.says("", traceA, &deploymentv1.DeploymentRequested{DeploymentId: "d1", Subdomain: "shop", Release: &deploymentv1.Release{Id: "r1"}})
	s.says("", traceA, &deploymentv1.DeploymentRunning{ReleaseId: "r1"})
	s.says("", traceB, &deploymentv1.RestartRequested{Release: &deploymentv1.Release{Id: "r2"}})
	s.says("", traceB, &deploymentv1.DeploymentRunning{ReleaseId: "r2"})
	s.commands = []command{
		{kind: create, subdomain: "shop", deployment: "d1", trace: traceA, outcome: acknowledged},
		{kind: restart, subdomain: "shop", deployment: "d1", trace: traceB, outcome: acknowledged},
	}
	s.world = world{
		containers: []podman.Container{{ID: "c1", State: "running", Labels: map[string]string{labelDeployment: "d1", labelRelease: "r2"}}},
		pages:      map[string]page{"shop": {200, traceA}},
		rows:       map[string]string{"d1": statusRunning},
	}
	return s
}

func (s *scene) problems() string {
	doubt, forever := verify(s.commands, fold(s.events), s.world, s.untouched)
	return strings.Join(append(forever, doubt...), "\n")
}

func TestWhatIsAsItMustBeIsNoProblem(t *testing.T) {
	t.Parallel()
	if got := well().problems(); got != "" {
		t.Error(got)
	}
	s := well()
	s.commands = append(s.commands,
		command{kind: stop, deployment: "d1", trace: "ab", outcome: unknown},
		command{kind: restart, deployment: "d1", trace: "cd", outcome: refused})
	if got := s.problems(); got != "" {
		t.Error(got)
	}
}

// What the platform could do wrong, and the check must see.
func TestEachWrongIsSeen(t *testing.T) {
	t.Parallel()
	second := func(s *scene) podman.Container {
		c := s.world.containers[0]
		c.ID = "c2"
		return c
	}
	for wrong, plant := range map[string]func(*scene){
		"an acknowledged command is not in the log": func(s *scene) { s.commands[1].trace = "lost" },
		"an acknowledged deployment is not in the log": func(s *scene) {
			s.commands = append(s.commands, command{kind: destroy, deployment: "d9", trace: "x", outcome: acknowledged})
		},
		"one command is 2 events": func(s *scene) {
			s.says("", traceB, &deploymentv1.RestartRequested{Release: &deploymentv1.Release{Id: "r2"}})
		},
		"a refused command is in the log": func(s *scene) { s.commands[1].outcome = refused },
		"is there 2 times":                func(s *scene) { s.says("e5", traceB, &deploymentv1.RouteRemoved{}) },
		"the release r2 of d1 (shop, running) ended 2 times": func(s *scene) {
			s.says("", traceB, &deploymentv1.DeploymentRunning{ReleaseId: "r2"})
		},
		"has 2 DeploymentDestroyed": func(s *scene) {
			s.says("", traceB, &deploymentv1.DeploymentDestroyed{})
			s.says("", traceB, &deploymentv1.DeploymentDestroyed{})
		},
		"was stopped 1 times and asked to 0 times":   func(s *scene) { s.says("", traceB, &deploymentv1.DeploymentStopped{}) },
		"1 releases of an app without fault failed":  func(s *scene) { s.says("", traceB, &deploymentv1.ReleaseFailed{ReleaseId: "r3"}) },
		"a destroy of d1 (shop, running) has not":    func(s *scene) { s.says("", traceB, &deploymentv1.DestroyRequested{}) },
		"has these containers: none":                 func(s *scene) { s.world.containers = nil },
		"has these containers: [[] exited":           func(s *scene) { s.world.containers[0].State = "exited" },
		"has these containers: [[] running":          func(s *scene) { s.world.containers = append(s.world.containers, second(s)) },
		"is of no deployment in the log":             func(s *scene) { s.world.containers[0].Labels = nil },
		"nobody touched, has another container":      func(s *scene) { s.world.containers[0].ID = "c2" },
		"shop answers {503 }":                        func(s *scene) { s.world.pages["shop"] = page{status: 503} },
		"shop answers {200 another}":                 func(s *scene) { s.world.pages["shop"] = page{200, "another"} },
		`the API says that d1 (shop, running) is ""`: func(s *scene) { s.world.rows = nil },
		"the API lists d9":                           func(s *scene) { s.world.rows["d9"] = statusRunning },
		"d1 (shop, running) does not hold its name": func(s *scene) {
			s.event(subjects.Of("_", subjects.Claim, "subdomain-1"), "", traceB, &claimv1.ClaimReleased{Name: "shop", Holder: "deployment/d1"})
		},
		"deployment/d1 holds the name shop": func(s *scene) {
			s.says("", traceB, &deploymentv1.DestroyRequested{})
			s.says("", traceB, &deploymentv1.DeploymentDestroyed{})
		},
		"but deployment/d1 holds it": func(s *scene) {
			s.event(subjects.Of("_", subjects.Claim, "subdomain-1"), "", traceB, &claimv1.ClaimTaken{Name: "shop", Holder: "deployment/d2"})
		},
		"cannot be read": func(s *scene) { s.says("", traceB, eventstore.NewUnreadable()) },
	} {
		t.Run(wrong, func(t *testing.T) {
			t.Parallel()
			s := well()
			plant(s)
			if got := s.problems(); !strings.Contains(got, wrong) {
				t.Errorf("found %q", got)
			}
		})
	}
}

func TestAVisitMayFailOnlyWhileTheEdgeIsAway(t *testing.T) {
	t.Parallel()
	at := func(second int64) time.Time { return time.Unix(second, 0) }
	for _, c := range []struct {
		name   string
		away   *window
		failed int
	}{{"never away", nil, 1}, {"away before", &window{at(1), at(4)}, 1}, {"away after", &window{at(7), at(8)}, 1}, {"away meanwhile", &window{at(4), at(6)}, 0}} {
		v := &traffic{served: 3, lost: 1, failed: []failure{{at(5), at(6), "GET"}}}
		served, excused, failed := v.since(c.away)
		if served != 3 || len(failed) != c.failed || excused != 1-c.failed {
			t.Errorf("%s: %d served, %d excused, failed: %v", c.name, served, excused, failed)
		}
	}
}

func TestASeedDecidesAllOfARoundAndEveryVictimHasItsTurn(t *testing.T) {
	t.Parallel()
	victims := []string{"a", "b", "c"}
	turns := map[string]int{}
	for number := 1; number <= 2*len(victims); number++ {
		one, two := plan(7, "here", victims, number), plan(7, "here", victims, number)
		if fmt.Sprint(one) != fmt.Sprint(two) || fmt.Sprint(one.wants) != fmt.Sprint(two.wants) {
			t.Errorf("a seed gives %v and %v", one, two)
		}
		if other := plan(8, "here", victims, number); fmt.Sprint(one.wants) == fmt.Sprint(other.wants) {
			t.Errorf("another seed gives the same round %v", one)
		}
		turns[one.victim]++
	}
	for _, v := range victims {
		if turns[v] != 2 {
			t.Errorf("%s is killed %d times in two turns", v, turns[v])
		}
	}
}
