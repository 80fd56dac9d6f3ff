// Package memory is an event log that lives as long as its process: for tests and
// for simulation. It starts no goroutines and reads no clock, so what it does
// depends on its callers alone; it remembers every event ID for ever.
package memory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const batchSize = 500

// Store is an eventstore.Store in memory. Use New.
type Store struct {
	mu      sync.Mutex
	log     []stored
	last    map[subjects.Aggregate]uint64
	seen    map[string]uint64
	changed chan struct{} // closed and replaced by each write
	skipped atomic.Uint64
}

// stored keeps the payload as bytes, so that no reader shares it with the writer.
type stored struct {
	event   eventstore.Event // without Payload
	subject string
	message protoreflect.FullName
	payload []byte
}

var _ eventstore.Store = (*Store)(nil)

// New returns an empty log.
func New() *Store {
	return &Store{
		last:    map[subjects.Aggregate]uint64{},
		seen:    map[string]uint64{},
		changed: make(chan struct{}),
	}
}

// Skipped counts the events that Follow could not read because their type is not known
// to this program.
func (s *Store) Skipped() uint64 { return s.skipped.Load() }

// Writable says that memory always is; see eventstore.Store.
func (s *Store) Writable() error { return nil }

// Append writes a decision; see eventstore.Store. The same ID again gives the first sequence.
func (s *Store) Append(ctx context.Context, e eventstore.Expected) (uint64, error) {
	entry, err := encode(e.Event)
	if err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("append %s: %w: %w", entry.subject, eventstore.ErrUnavailable, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sequence, ok := s.seen[key(e.Event)]; ok {
		return sequence, nil
	}
	if s.last[e.Aggregate] != e.LastSequence {
		return 0, fmt.Errorf("append %s after %d: %w", entry.subject, e.LastSequence, eventstore.ErrConflict)
	}
	return s.write(entry), nil
}

// AppendBatch writes all or nothing; see eventstore.Store.
func (s *Store) AppendBatch(ctx context.Context, events []eventstore.Expected) (uint64, error) {
	entries := make([]stored, len(events))
	owners := map[subjects.Aggregate]bool{}
	for i, e := range events {
		entry, err := encode(e.Event)
		if err != nil {
			return 0, err
		}
		if owners[e.Aggregate] {
			return 0, fmt.Errorf("append a batch: more than one event of %s", e.Aggregate)
		}
		owners[e.Aggregate], entries[i] = true, entry
	}
	if len(events) == 0 {
		return 0, errors.New("append a batch: it is empty")
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("append a batch: %w: %w", eventstore.ErrUnavailable, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range events {
		if _, ok := s.seen[key(e.Event)]; ok || s.last[e.Aggregate] != e.LastSequence {
			return 0, fmt.Errorf("append %s after %d: %w", entries[i].subject, e.LastSequence, eventstore.ErrConflict)
		}
	}
	var sequence uint64
	for _, entry := range entries {
		sequence = s.write(entry)
	}
	return sequence, nil
}

// Record writes a fact; see eventstore.Store.
func (s *Store) Record(ctx context.Context, e eventstore.Event) (uint64, error) {
	entry, err := encode(e)
	if err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("record %s: %w: %w", entry.subject, eventstore.ErrUnavailable, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sequence, ok := s.seen[key(e)]; ok {
		return sequence, nil
	}
	return s.write(entry), nil
}

func (s *Store) write(entry stored) uint64 {
	s.log = append(s.log, entry)
	sequence := uint64(len(s.log))
	s.last[entry.event.Aggregate] = sequence
	s.seen[key(entry.event)] = sequence
	close(s.changed)
	s.changed = make(chan struct{})
	return sequence
}

// Load returns an aggregate's events; see eventstore.Store.
func (s *Store) Load(ctx context.Context, a subjects.Aggregate, after uint64) ([]eventstore.Recorded, error) {
	if err := a.Validate(); err != nil {
		return nil, fmt.Errorf("load %s: %w", a, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load %s: %w: %w", a, eventstore.ErrUnavailable, err)
	}
	entries, first, _ := s.from(after)
	var out []eventstore.Recorded
	for i, entry := range entries {
		if entry.event.Aggregate != a {
			continue
		}
		out = append(out, entry.decode(first+uint64(i)))
	}
	return out, nil
}

// LastSequence returns the last sequence that matches; see eventstore.Store.
func (s *Store) LastSequence(ctx context.Context, filter string) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("last sequence of %s: %w: %w", filter, eventstore.ErrUnavailable, err)
	}
	entries, _, _ := s.from(0)
	return lastOf(entries, []string{filter}), nil
}

// Follow hands over every matching event; see eventstore.Store.
func (s *Store) Follow(ctx context.Context, after uint64, handle func(context.Context, []eventstore.Recorded) error, caughtUp func(), filters ...string) error {
	if len(filters) == 0 {
		return errors.New("follow: no filters")
	}
	all, _, _ := s.from(0)
	target := lastOf(all, filters)
	for {
		entries, first, changed := s.from(after)
		if caughtUp != nil && after >= target {
			caughtUp()
			caughtUp = nil
		}
		if len(entries) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				continue
			}
		}
		batch, read := s.batch(entries, first, filters)
		if ctx.Err() != nil {
			return nil
		}
		if len(batch) > 0 {
			if err := handle(ctx, batch); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
		after += uint64(read)
	}
}

// batch returns the next events that match, and how many entries it has looked at.
func (s *Store) batch(entries []stored, first uint64, filters []string) (batch []eventstore.Recorded, read int) {
	for i, entry := range entries {
		if len(batch) == batchSize {
			return batch, i
		}
		if !matchesAny(filters, entry.subject) {
			continue
		}
		r := entry.decode(first + uint64(i))
		if !r.Readable() {
			s.skipped.Add(1)
		}
		batch = append(batch, r)
	}
	return batch, len(entries)
}

// from returns the entries behind after, the sequence of the first of them, and a
// channel that is closed when there are more.
func (s *Store) from(after uint64) ([]stored, uint64, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(after, uint64(len(s.log)))
	return s.log[n:len(s.log):len(s.log)], n + 1, s.changed
}

func lastOf(entries []stored, filters []string) uint64 {
	for i := len(entries) - 1; i >= 0; i-- {
		if matchesAny(filters, entries[i].subject) {
			return uint64(i) + 1
		}
	}
	return 0
}

func encode(e eventstore.Event) (stored, error) {
	if err := e.Aggregate.Validate(); err != nil {
		return stored{}, fmt.Errorf("append to %s: %w", e.Aggregate, err)
	}
	if e.ID == "" || e.Payload == nil {
		return stored{}, fmt.Errorf("append to %s: the event has no ID or no payload", e.Aggregate)
	}
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(e.Payload)
	if err != nil {
		return stored{}, fmt.Errorf("append to %s: encode %s: %w", e.Aggregate, e.Type(), err)
	}
	entry := stored{
		subject: e.Aggregate.Event(e.Type()), message: e.Payload.ProtoReflect().Descriptor().FullName(), payload: payload,
	}
	e.Payload, e.Time = nil, e.Time.UTC()
	entry.event = e
	return entry, nil
}

// decode gives what it cannot read as unreadable.
func (e stored) decode(sequence uint64) eventstore.Recorded {
	r := eventstore.Recorded{Event: e.event, Sequence: sequence}
	r.Payload = eventstore.NewUnreadable()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(e.message)
	if err != nil {
		return r
	}
	if payload := kind.New().Interface(); proto.Unmarshal(e.payload, payload) == nil {
		r.Payload = payload
	}
	return r
}

func key(e eventstore.Event) string { return e.Aggregate.Filter() + e.ID }

func matchesAny(filters []string, subject string) bool {
	for _, f := range filters {
		if matches(f, subject) {
			return true
		}
	}
	return false
}

// matches is NATS's: * is one token, > is all that remain and at least one.
func matches(filter, subject string) bool {
	for {
		f, filterRest, moreFilter := strings.Cut(filter, ".")
		s, subjectRest, moreSubject := strings.Cut(subject, ".")
		if f == ">" && !moreFilter {
			return true
		}
		if f != "*" && f != s || moreFilter != moreSubject {
			return false
		}
		if !moreFilter {
			return true
		}
		filter, subject = filterRest, subjectRest
	}
}
