package events_test

import (
	"context"
	"strings"
	"testing"
	"time"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/events"
)

// asked notes the filters that it is followed with, and gives what no filter would.
type asked struct {
	eventstore.Store
	filters []string
	gives   []eventstore.Recorded
}

func (a *asked) Follow(ctx context.Context, _ uint64, handle func(context.Context, []eventstore.Recorded) error, caughtUp func(), filters ...string) error {
	a.filters = filters
	err := handle(ctx, a.gives)
	caughtUp()
	return err
}

type client struct{ got []cloudevents.Event }

func (c *client) Begin() error                   { return nil }
func (c *client) Send(e cloudevents.Event) error { c.got = append(c.got, e); return nil }
func (c *client) CaughtUp() error                { return nil }
func (c *client) Beat() error                    { return nil }

func followed(t *testing.T, log *asked, of cloudevents.Selection) (*client, error) {
	t.Helper()
	c := &client{}
	return c, events.NewStreams(log, 1, 1, time.Minute, func(string, uint64) {}).Follow(t.Context(), "op", of, 0, c)
}

func TestASelectionIsFiltersThatNeverOverlap(t *testing.T) {
	t.Parallel()
	for want, ask := range map[string][2][]string{
		"evt.acme.*.*.*":                           {nil, nil},
		"evt.acme.deployment.*.*":                  {nil, {"deployment/1", "deployment", "deployment/2", "deployment"}},
		"evt.acme.deployment.1.* evt.acme.org.*.*": {nil, {"org", "deployment/1"}},
		"evt.acme.deployment.*.DeploymentRunning evt.acme.deployment.*.RouteBound": {{"RouteBound", "DeploymentRunning", "RouteBound"}, {"deployment"}},
	} {
		of, err := cloudevents.Select("acme", ask[0], ask[1])
		if err != nil {
			t.Fatal(err)
		}
		log := &asked{}
		if _, err := followed(t, log, of); err != nil || strings.Join(log.filters, " ") != want {
			t.Errorf("%v: followed %v, %v", ask, log.filters, err)
		}
	}
}

func TestWhatSelectsNothingOrTooMuchIsRefused(t *testing.T) {
	t.Parallel()
	for _, ask := range [][2][]string{
		{{"Nothing"}, nil}, {{"*"}, nil}, {{""}, nil}, {nil, {""}}, {nil, {"*"}}, {nil, {"session"}}, {nil, {"deployment/"}}, {nil, {"deployment/>"}},
		{nil, {"deployment/a.b"}}, {nil, {"deployment/a/b"}}, {make([]string, 9), nil}, {nil, make([]string, 9)}, {{strings.Repeat("x", 9000)}, nil},
	} {
		_, err := cloudevents.Select("acme", ask[0], ask[1])
		p := problem.From(err)
		if err == nil || p.Status != 422 || len(p.Fields) == 0 || len(p.Message) > 400 {
			t.Errorf("%.40v: got %v", ask, err)
		}
	}
	for _, org := range []string{"", "*", ">", subjects.Platform} {
		if _, err := followed(t, &asked{}, cloudevents.Selection{Org: org}); err == nil {
			t.Errorf("the organization %q was followed", org)
		}
	}
}

func TestWhatALogGivesOfAnotherOrganizationIsNotShown(t *testing.T) {
	t.Parallel()
	theirs := eventstore.Recorded{Sequence: 1, Event: eventstore.Event{Aggregate: subjects.Of("other", subjects.Deployment, "d"), Payload: &deploymentv1.DeploymentRunning{}}}
	log := &asked{gives: []eventstore.Recorded{theirs}}
	if c, err := followed(t, log, cloudevents.Selection{Org: "acme"}); err != nil || len(c.got) > 0 {
		t.Errorf("got %v, %v", c.got, err)
	}
}

func TestWhatASelectionHasIsItsOrganizationsOwn(t *testing.T) {
	t.Parallel()
	of, err := cloudevents.Select("acme", []string{"DeploymentRunning"}, []string{"deployment/1", "org"})
	if err != nil {
		t.Fatal(err)
	}
	for a, want := range map[subjects.Aggregate]bool{
		subjects.Of("acme", subjects.Deployment, "1"): true, subjects.Of("acme", subjects.Deployment, "2"): false,
		subjects.Of("other", subjects.Deployment, "1"): false, subjects.Of("acme", subjects.Org, "acme"): true,
	} {
		if got := of.Matches(a, "DeploymentRunning"); got != want {
			t.Errorf("%s of %s: %v", a, a.Org, got)
		}
	}
	if of.Matches(subjects.Of("acme", subjects.Deployment, "1"), "RouteBound") {
		t.Error("it has events of other types")
	}
}
