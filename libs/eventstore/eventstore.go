// Package eventstore is the log that is the state: it appends decisions and facts
// and gives them back in order. Two implementations, jetstream and memory, pass
// the same contract suite, storetest.
package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/slipway-paas/slipway/libs/subjects"
)

var (
	// ErrConflict is returned by Append and AppendBatch when another event came
	// first: load, decide again, append again.
	ErrConflict = errors.New("the stream has moved on")
	// ErrUnavailable is returned when the log cannot be reached or did not answer
	// in time: whether the event was written is not known; load and look.
	ErrUnavailable = errors.New("the event log is not available")
	// ErrReadOnly is an ErrUnavailable of which it is known that nothing was written:
	// the log refuses writes before they are made, as its disk is full or broken.
	ErrReadOnly = fmt.Errorf("%w: it takes no writes", ErrUnavailable)
)

// Event is what is to be written.
type Event struct {
	// Aggregate is whose event it is.
	Aggregate subjects.Aggregate
	// ID makes the event unique: a UUID for decisions, for facts a text made from
	// what was seen, so that seeing it twice writes it once (within the store's
	// dedupe window; folds ignore later repeats).
	ID string
	// Payload's message name is the event's type.
	Payload proto.Message
	// Time is when it happened, by the writer's clock.
	Time time.Time
	// Source is the service that writes it, e.g. "scheduler" or "node-agent/<node>".
	Source string
	// Actor is the OAuth app or operator that asked for it; empty for the platform.
	Actor string
	// Causation is the id of the command or event that led to it.
	Causation string
	// Correlation ties together all that one request caused.
	Correlation string
	// TraceParent is the W3C trace context it was made in; empty for none.
	TraceParent string
}

// Type is the event's type: the payload's message name, the subject's last token.
func (e Event) Type() string { return string(e.Payload.ProtoReflect().Descriptor().Name()) }

// Recorded is an event as the log holds it.
type Recorded struct {
	Event
	// Sequence is its place in the one global order, from 1.
	Sequence uint64
}

// NewUnreadable is the payload of an event that this program cannot read: its type
// is not linked in, or its bytes are broken. The event keeps its place in the order,
// so that expected sequences and checkpoints move past it; folds ignore it.
func NewUnreadable() proto.Message { return &emptypb.Empty{} }

// Readable reports whether the payload is the event's own.
func (e Event) Readable() bool {
	_, placeholder := e.Payload.(*emptypb.Empty)
	return !placeholder
}

// Expected pairs a decision with the sequence of the last event of its aggregate
// that the decision was made from; 0 for none yet.
type Expected struct {
	Event
	LastSequence uint64
}

// Store is the event log.
type Store interface {
	// Writable returns at once why nothing can be written now, ErrReadOnly, or nil when
	// writing is worth trying: to be asked before what goes with an event is done.
	Writable() error
	// Append writes a decision when the aggregate's last sequence is still the
	// expected one, and returns the event's sequence. Writing the same ID again is
	// ErrConflict or the first sequence. Errors: ErrConflict, ErrUnavailable.
	Append(ctx context.Context, e Expected) (sequence uint64, err error)
	// AppendBatch writes all or nothing, of different aggregates, and returns the
	// last sequence. Errors: ErrConflict, ErrUnavailable.
	AppendBatch(ctx context.Context, events []Expected) (sequence uint64, err error)
	// Record writes a fact; recording the same ID again within the dedupe window
	// returns the first one's sequence. Errors: ErrUnavailable.
	Record(ctx context.Context, e Event) (sequence uint64, err error)
	// Load returns the aggregate's events with a sequence above after, in order.
	// Every event acknowledged before the call is among them; one that cannot be read
	// has the payload NewUnreadable.
	Load(ctx context.Context, a subjects.Aggregate, after uint64) ([]Recorded, error)
	// LastSequence returns the sequence of the last event that matches the filter
	// (a subject with wildcards), 0 when there is none.
	LastSequence(ctx context.Context, filter string) (uint64, error)
	// Follow hands over, in order and in batches of at most 500, every event that
	// matches one of the filters with a sequence above after, then goes on with new
	// ones until ctx ends (then it returns nil) or handle fails (then that error).
	// It survives reconnects. An event that cannot be read has the payload
	// NewUnreadable. handle is never called concurrently. caughtUp, when
	// not nil, is called once, after handle has had all that was in the log when
	// Follow began.
	Follow(ctx context.Context, after uint64, handle func(context.Context, []Recorded) error, caughtUp func(), filters ...string) error
}
