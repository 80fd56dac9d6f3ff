// Package decider is the shape of an aggregate: two pure functions, Decide and
// Evolve, and the Handler that runs them against the log. Package gwt tests them
// without any log.
package decider

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/eventstore"
)

// Decider is an aggregate with states S and commands C. Its functions read no
// clock, draw no random numbers and do no I/O; they never alter what they are given,
// because states are cached and shared.
type Decider[S, C any] struct {
	// Initial makes the state before the first event.
	Initial func() S
	// Decide says what happens when a command meets a state: one event, nil when
	// there is nothing to do, or an error that refuses the command.
	Decide func(state S, command C, now time.Time) (proto.Message, error)
	// Evolve is the state after an event. It must accept every event of the
	// aggregate and ignore what it does not need.
	Evolve func(state S, event eventstore.Recorded) S
}

// Fold is the state after events, from state on.
func (d Decider[S, C]) Fold(state S, events []eventstore.Recorded) S {
	for _, e := range events {
		state = d.Evolve(state, e)
	}
	return state
}
