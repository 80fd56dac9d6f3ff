// Package gwt tests a decider as a story: given what has happened, when this is
// asked, then that happens.
//
//	gwt.New(t, deployment.Decider).
//		Given(&deploymentv1.DeploymentRequested{…}).
//		When(deployment.Stop{}).
//		Then(&deploymentv1.DeploymentStopping{…})
//
// On the way it checks that neither Decide nor Evolve alters what it is given.
package gwt

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Start is when the first event of a story happens; each one given comes a second
// after the one before, and what is asked is asked a second after the last.
func Start() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// Story is a decider and what has happened to it.
type Story[S, C any] struct {
	t         testing.TB
	decider   decider.Decider[S, C]
	aggregate subjects.Aggregate
	events    []eventstore.Recorded
	now       time.Time
}

// New begins a story in which nothing has happened.
func New[S, C any](t testing.TB, d decider.Decider[S, C]) *Story[S, C] {
	return &Story[S, C]{t: t, decider: d, aggregate: subjects.Of("acme", "aggregate", "1"), now: Start()}
}

// Of says whose events those given from here on are.
func (s *Story[S, C]) Of(a subjects.Aggregate) *Story[S, C] {
	s.aggregate = a
	return s
}

// Given says that these events have happened.
func (s *Story[S, C]) Given(events ...proto.Message) *Story[S, C] {
	for _, e := range events {
		sequence := uint64(len(s.events)) + 1
		s.GivenRecorded(eventstore.Recorded{Sequence: sequence, Event: eventstore.Event{
			Aggregate: s.aggregate, ID: fmt.Sprintf("event-%d", sequence), Payload: e, Time: s.now, Source: "gwt",
		}})
	}
	return s
}

// GivenRecorded says that these events have happened, with all that is known of them.
func (s *Story[S, C]) GivenRecorded(events ...eventstore.Recorded) *Story[S, C] {
	s.events = append(s.events, events...)
	if n := len(s.events); n > 0 {
		s.now = s.events[n-1].Time.Add(time.Second)
	}
	return s
}

// At sets the time of what comes next.
func (s *Story[S, C]) At(now time.Time) *Story[S, C] {
	s.now = now
	return s
}

// State is what the events come to.
func (s *Story[S, C]) State() S {
	s.t.Helper()
	state := s.decider.Initial()
	for i, e := range s.events {
		next := s.decider.Evolve(state, e)
		if fresh := s.decider.Fold(s.decider.Initial(), s.events[:i]); !reflect.DeepEqual(state, fresh) {
			s.t.Errorf("Evolve altered the state that it was given with event %d, %s", i+1, e.Type())
		}
		state = next
	}
	return state
}

// When asks for something.
func (s *Story[S, C]) When(command C) *Outcome[S, C] {
	s.t.Helper()
	state := s.State()
	event, err := s.decider.Decide(state, command, s.now)
	if !reflect.DeepEqual(state, s.decider.Fold(s.decider.Initial(), s.events)) {
		s.t.Errorf("Decide altered the state that it was given with %T", command)
	}
	return &Outcome[S, C]{story: s, command: fmt.Sprintf("%T", command), event: event, err: err}
}

// Outcome is what came of a command.
type Outcome[S, C any] struct {
	story   *Story[S, C]
	command string
	event   proto.Message
	err     error
}

// Then wants this event, and goes on with a story in which it has happened.
func (o *Outcome[S, C]) Then(want proto.Message) *Story[S, C] {
	o.story.t.Helper()
	if o.err != nil || o.event == nil {
		o.story.t.Fatalf("%s: wanted %s, got %s", o.command, show(want), o)
	}
	if diff := cmp.Diff(want, o.event, protocmp.Transform()); diff != "" {
		o.story.t.Errorf("%s: the event is not the wanted one, - wanted + got:\n%s", o.command, diff)
	}
	return o.story.Given(o.event)
}

// ThenNothing wants that there was nothing to do.
func (o *Outcome[S, C]) ThenNothing() *Story[S, C] {
	o.story.t.Helper()
	if o.err != nil || o.event != nil {
		o.story.t.Errorf("%s: wanted nothing, got %s", o.command, o)
	}
	return o.story
}

// ThenError wants a refusal: a problem with that code.
func (o *Outcome[S, C]) ThenError(code string) *Story[S, C] {
	o.story.t.Helper()
	var p *problem.Error
	if !errors.As(o.err, &p) || p.Code != code {
		o.story.t.Errorf("%s: wanted the problem %s, got %s", o.command, code, o)
	}
	return o.story
}

// ThenErrorIs wants a refusal that is target.
func (o *Outcome[S, C]) ThenErrorIs(target error) *Story[S, C] {
	o.story.t.Helper()
	if !errors.Is(o.err, target) {
		o.story.t.Errorf("%s: wanted the error %q, got %s", o.command, target, o)
	}
	return o.story
}

// String says what came, for a failure.
func (o *Outcome[S, C]) String() string {
	var p *problem.Error
	switch {
	case errors.As(o.err, &p):
		return fmt.Sprintf("the problem %s: %s", p.Code, p.Message)
	case o.err != nil:
		return fmt.Sprintf("the error %q", o.err)
	case o.event == nil:
		return "nothing"
	}
	return show(o.event)
}

func show(m proto.Message) string {
	return fmt.Sprintf("%s{%s}", m.ProtoReflect().Descriptor().Name(), prototext.MarshalOptions{}.Format(m))
}
