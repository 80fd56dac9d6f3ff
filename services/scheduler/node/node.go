// Package node is the node aggregate: whether a node takes instances, and whether
// it can keep those it has. It is pure: no clock, no random numbers, no I/O.
package node

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
)

// Status is what the people who run the platform see.
type Status string

// The statuses of a node.
const (
	// Ready nodes take instances.
	Ready Status = "ready"
	// Cordoned nodes keep their instances and take nothing new.
	Cordoned Status = "cordoned"
	// Draining nodes are cordoned, and their instances move away.
	Draining Status = "draining"
	// Lost nodes have not been heard of for too long.
	Lost Status = "lost"
)

// State is one node, folded from its events. The zero value is a node that was
// never heard of.
type State struct {
	ID string
	// MemoryMB and CPUMillicores are its share for instances when it last joined.
	MemoryMB, CPUMillicores uint32

	Lost bool
	// Cordoned and Drain outlive a loss: who cordons a node means it until it is undone.
	Cordoned, Drain bool
}

// Exists reports whether the node ever joined.
func (s State) Exists() bool { return s.ID != "" }

// Status is the first of lost, draining, cordoned that holds, else ready.
func (s State) Status() Status {
	switch {
	case s.Lost:
		return Lost
	case s.Drain:
		return Draining
	case s.Cordoned:
		return Cordoned
	}
	return Ready
}

// Command is something asked of a node.
type Command interface{ command() }

type (
	// Join says that the node was heard of, with its share of the machine.
	Join struct {
		ID                      string
		MemoryMB, CPUMillicores uint32
	}
	// Lose says that it has not been heard of for Silence.
	Lose struct{ Silence time.Duration }
	// Drain cordons it and moves its instances away.
	Drain struct{ By string }
	// Uncordon undoes Drain.
	Uncordon struct{ By string }
)

func (Join) command()     {}
func (Lose) command()     {}
func (Drain) command()    {}
func (Uncordon) command() {}

// Decider is the aggregate.
func Decider() decider.Decider[State, Command] {
	return decider.Decider[State, Command]{
		Initial: func() State { return State{} }, Decide: Decide, Evolve: Evolve,
	}
}

// Decide answers a command with at most one event; nil means that there is nothing
// to do. Errors: *problem.Error of code not_found for a node that never joined.
func Decide(s State, c Command, _ time.Time) (proto.Message, error) {
	switch c := c.(type) {
	case Join:
		if s.Exists() && !s.Lost {
			return nil, nil
		}
		return &nodev1.NodeJoined{NodeId: c.ID, MemoryMb: c.MemoryMB, CpuMillicores: c.CPUMillicores}, nil
	case Lose:
		if !s.Exists() || s.Lost {
			return nil, nil
		}
		return &nodev1.NodeLost{NodeId: s.ID, Reason: fmt.Sprintf("No heartbeat for %s.", c.Silence)}, nil
	case Drain:
		switch {
		case !s.Exists():
			return nil, unknown()
		case s.Drain:
			return nil, nil
		}
		return &nodev1.NodeCordoned{NodeId: s.ID, Drain: true, InitiatedBy: c.By}, nil
	case Uncordon:
		switch {
		case !s.Exists():
			return nil, unknown()
		case !s.Cordoned:
			return nil, nil
		}
		return &nodev1.NodeUncordoned{NodeId: s.ID, InitiatedBy: c.By}, nil
	}
	return nil, fmt.Errorf("deciding on %T: no such command", c)
}

func unknown() error { return problem.NotFound("Node not found: none with this id ever joined.") }

// Evolve folds one event into the state.
func Evolve(s State, rec eventstore.Recorded) State {
	switch e := rec.Payload.(type) {
	case *nodev1.NodeJoined:
		s.ID, s.MemoryMB, s.CPUMillicores, s.Lost = e.NodeId, e.MemoryMb, e.CpuMillicores, false
	case *nodev1.NodeLost:
		s.Lost = true
	case *nodev1.NodeCordoned:
		s.Cordoned, s.Drain = true, e.Drain
	case *nodev1.NodeUncordoned:
		s.Cordoned, s.Drain = false, false
	}
	return s
}
