// Package jetstream keeps the event log in one NATS JetStream stream, EVENTS.
//
// An event's subject is evt.<org>.<kind>.<id>.<Type>, its data is the protobuf
// message, and all else rides in CloudEvents binary-mode headers, so that any NATS
// client can read the log.
//
// An event whose type is not linked into this program, or that cannot be decoded,
// stops nobody: it is handed over as unreadable, logged and counted (Skipped).
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// requestTime bounds every write and read; after it the outcome of a write is
	// not known and the answer is ErrUnavailable.
	requestTime = 5 * time.Second
	// recordAttempts and recordWait bound how long Record waits for the same fact
	// that another writer is just writing.
	recordAttempts = 20
	recordWait     = 5 * time.Millisecond
)

// Error codes of the server.
const (
	codeWrongLast         jetstream.ErrorCode = 10071
	codeWrongLastConstant jetstream.ErrorCode = 10164
	codeDuplicateInFlight jetstream.ErrorCode = 10158
	codeBatchTooMany      jetstream.ErrorCode = 10210
)

// Store is an eventstore.Store on JetStream. Use New.
type Store struct {
	js  jetstream.JetStream
	log *slog.Logger
	// replicated is whether a read may meet a replica that lags; unknown at first.
	replicated atomic.Int32
	skipped    atomic.Uint64
	watch      *instruments
	// writable is nil when it is not known.
	writable func() error
}

var _ eventstore.Store = (*Store)(nil)

// New uses the stream EVENTS, which must exist when the store is first used: with
// direct reads, atomic batches and a window for duplicates. A meter that refuses
// the store's instruments is logged, and the store does without.
func New(js jetstream.JetStream, log *slog.Logger, opts ...Option) *Store {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	return &Store{js: js, log: log, watch: newInstruments(log, opts), writable: o.writable}
}

// Skipped counts the events that Follow could not read; see the package.
func (s *Store) Skipped() uint64 { return s.skipped.Load() }

// Writable says what WithWritable's function does; see eventstore.Store.
func (s *Store) Writable() error {
	if s.writable == nil {
		return nil
	}
	if err := s.writable(); err != nil {
		return fmt.Errorf("%w: %w", eventstore.ErrReadOnly, err)
	}
	return nil
}

// Append writes a decision; see eventstore.Store. The same ID again within the
// window for duplicates gives the first sequence.
func (s *Store) Append(ctx context.Context, e eventstore.Expected) (uint64, error) {
	ctx, w := s.watch.begin(ctx, opAppend, &e.Event, 1)
	sequence, err := s.append(ctx, e)
	w.end(ctx, sequence, err)
	return sequence, err
}

func (s *Store) append(ctx context.Context, e eventstore.Expected) (uint64, error) {
	msg, err := encode(e.Event)
	if err != nil {
		return 0, err
	}
	expect(msg, e)
	ack, err := s.publish(ctx, msg)
	if err != nil {
		return 0, fmt.Errorf("append %s after %d: %w", msg.Subject, e.LastSequence, err)
	}
	return ack.Sequence, nil
}

// Record writes a fact; see eventstore.Store.
func (s *Store) Record(ctx context.Context, e eventstore.Event) (uint64, error) {
	ctx, w := s.watch.begin(ctx, opRecord, &e, 1)
	sequence, err := s.record(ctx, e)
	w.end(ctx, sequence, err)
	return sequence, err
}

func (s *Store) record(ctx context.Context, e eventstore.Event) (uint64, error) {
	msg, err := encode(e)
	if err != nil {
		return 0, err
	}
	for attempt := 1; ; attempt++ {
		ack, err := s.publish(ctx, msg)
		if err == nil {
			return ack.Sequence, nil
		}
		var api *jetstream.APIError
		if !errors.As(err, &api) || api.ErrorCode != codeDuplicateInFlight || attempt == recordAttempts {
			return 0, fmt.Errorf("record %s: %w", msg.Subject, err)
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("record %s: %w: %w", msg.Subject, eventstore.ErrUnavailable, ctx.Err())
		case <-time.After(recordWait):
		}
	}
}

func (s *Store) publish(ctx context.Context, msg *nats.Msg) (*jetstream.PubAck, error) {
	if err := s.Writable(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	ack, err := s.js.PublishMsg(ctx, msg)
	return ack, writeError(err)
}

// AppendBatch writes all or nothing; see eventstore.Store. An ID that was written
// before is ErrConflict.
func (s *Store) AppendBatch(ctx context.Context, events []eventstore.Expected) (uint64, error) {
	switch len(events) {
	case 0:
		return 0, errors.New("append a batch: it is empty")
	case 1:
		return s.Append(ctx, events[0])
	}
	// The decision comes last; what goes with it before.
	ctx, w := s.watch.begin(ctx, opBatch, &events[len(events)-1].Event, len(events))
	sequence, err := s.appendBatch(ctx, events)
	w.end(ctx, sequence, err)
	return sequence, err
}

func (s *Store) appendBatch(ctx context.Context, events []eventstore.Expected) (uint64, error) {
	msgs := make([]*nats.Msg, len(events))
	owners := make(map[subjects.Aggregate]bool, len(events))
	for i, e := range events {
		// The server would hold the second expectation against a log without the first event.
		if owners[e.Aggregate] {
			return 0, fmt.Errorf("append a batch: more than one event of %s", e.Aggregate)
		}
		owners[e.Aggregate] = true
		msg, err := encode(e.Event)
		if err != nil {
			return 0, err
		}
		expect(msg, e)
		msgs[i] = msg
	}
	if ctx.Err() != nil {
		// A batch that is begun and not committed stays with the server for a while.
		return 0, fmt.Errorf("append a batch: %w: %w", eventstore.ErrUnavailable, ctx.Err())
	}
	if err := s.Writable(); err != nil {
		return 0, fmt.Errorf("append a batch: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	// Whatever is wrong with the batch comes back with its commit: waiting for the
	// first message as well would double the time.
	ack, err := jetstreamext.PublishMsgBatch(ctx, s.js, msgs, jetstreamext.BatchFlowControl{AckFirst: false})
	if err = writeError(err); err != nil {
		return 0, fmt.Errorf("append a batch of %d with %s: %w", len(events), msgs[0].Subject, err)
	}
	return ack.Sequence, nil
}

// writeError says of a failed write whether others were faster or the log is away.
func writeError(err error) error {
	if err == nil {
		return nil
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch {
		case api.ErrorCode == codeWrongLast, api.ErrorCode == codeWrongLastConstant,
			api.ErrorCode == codeDuplicateInFlight, api.ErrorCode == jetstreamext.JSErrCodeBatchPublishDuplicateMsgID:
			return fmt.Errorf("%w: %w", eventstore.ErrConflict, err)
		case api.Code >= http.StatusInternalServerError, api.ErrorCode == codeBatchTooMany,
			api.ErrorCode == jetstreamext.JSErrCodeBatchPublishIncomplete:
			return fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
		}
		return err
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return err
	}
	// A timeout, a lost connection, nobody there, the caller's own deadline.
	return fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
}
