package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/subjects"
)

var (
	// ErrNoKey is returned by KeyStore.Get when there is no key, or no longer.
	ErrNoKey = errors.New("there is no data key")
	// ErrKeyExists is returned by KeyStore.Create when there is or was a key.
	ErrKeyExists = errors.New("there is or was a data key already")
	// ErrKeyChanged is returned by KeyStore.Replace when the key is another, or gone.
	ErrKeyChanged = errors.New("the data key is another one now")
)

// KeyStore keeps each aggregate's wrapped data key.
type KeyStore interface {
	// Get returns the key. Errors: ErrNoKey.
	Get(ctx context.Context, a subjects.Aggregate) (wrapped []byte, err error)
	// Create keeps the first key that an aggregate has. Errors: ErrKeyExists.
	Create(ctx context.Context, a subjects.Aggregate, wrapped []byte) error
	// All are the aggregates that have a key.
	All(ctx context.Context) ([]subjects.Aggregate, error)
	// Replace keeps the key wrapped otherwise, if it is still the old one. Errors:
	// ErrKeyChanged.
	Replace(ctx context.Context, a subjects.Aggregate, old, wrapped []byte) error
	// Destroy removes the key for ever, there or not; none can be created after it.
	Destroy(ctx context.Context, a subjects.Aggregate) error
}

// KV keeps keys in a JetStream key-value bucket, which must keep one value for each
// key and let nothing expire.
type KV struct{ bucket jetstream.KeyValue }

// NewKV uses that bucket.
func NewKV(bucket jetstream.KeyValue) KV { return KV{bucket: bucket} }

// Get returns the key; see KeyStore.
func (s KV) Get(ctx context.Context, a subjects.Aggregate) ([]byte, error) {
	entry, err := s.bucket.Get(ctx, subjects.DataKey(a))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, ErrNoKey
	}
	if err != nil {
		return nil, fmt.Errorf("get the data key: %w", err)
	}
	return entry.Value(), nil
}

// Create keeps the first key; see KeyStore.
func (s KV) Create(ctx context.Context, a subjects.Aggregate, wrapped []byte) error {
	// Unlike the bucket's own Create, this does not write over a key that was purged.
	_, err := s.bucket.Update(ctx, subjects.DataKey(a), wrapped, 0)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return ErrKeyExists
	}
	if err != nil {
		return fmt.Errorf("keep the data key: %w", err)
	}
	return nil
}

// All lists the keys; see KeyStore.
func (s KV) All(ctx context.Context) ([]subjects.Aggregate, error) {
	names, err := s.bucket.Keys(ctx)
	if errors.Is(err, jetstream.ErrNoKeysFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the data keys: %w", err)
	}
	all := make([]subjects.Aggregate, 0, len(names))
	for _, name := range names {
		parts := strings.Split(name, ".")
		if len(parts) != 3 {
			return nil, fmt.Errorf("list the data keys: %q is no data key's name", name)
		}
		all = append(all, subjects.Of(parts[0], parts[1], parts[2]))
	}
	return all, nil
}

// Replace keeps the key wrapped otherwise; see KeyStore.
func (s KV) Replace(ctx context.Context, a subjects.Aggregate, old, wrapped []byte) error {
	entry, err := s.bucket.Get(ctx, subjects.DataKey(a))
	if errors.Is(err, jetstream.ErrKeyNotFound) || err == nil && !bytes.Equal(entry.Value(), old) {
		return ErrKeyChanged
	}
	if err != nil {
		return fmt.Errorf("get the data key: %w", err)
	}
	_, err = s.bucket.Update(ctx, subjects.DataKey(a), wrapped, entry.Revision())
	if errors.Is(err, jetstream.ErrKeyExists) {
		return ErrKeyChanged
	}
	if err != nil {
		return fmt.Errorf("keep the data key wrapped anew: %w", err)
	}
	return nil
}

// Destroy purges the key; see KeyStore.
func (s KV) Destroy(ctx context.Context, a subjects.Aggregate) error {
	if err := s.bucket.Purge(ctx, subjects.DataKey(a)); err != nil {
		return fmt.Errorf("purge the data key: %w", err)
	}
	return nil
}

// Memory keeps keys as long as the process lives, for tests.
type Memory struct {
	mu   sync.Mutex
	keys map[subjects.Aggregate][]byte // nil when destroyed
}

// NewMemory keeps no keys yet.
func NewMemory() *Memory { return &Memory{keys: map[subjects.Aggregate][]byte{}} }

// Get returns the key; see KeyStore.
func (s *Memory) Get(_ context.Context, a subjects.Aggregate) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wrapped := s.keys[a]; wrapped != nil {
		return wrapped, nil
	}
	return nil, ErrNoKey
}

// Create keeps the first key; see KeyStore.
func (s *Memory) Create(_ context.Context, a subjects.Aggregate, wrapped []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.keys[a]; ok {
		return ErrKeyExists
	}
	s.keys[a] = wrapped
	return nil
}

// All lists the keys; see KeyStore.
func (s *Memory) All(context.Context) ([]subjects.Aggregate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []subjects.Aggregate
	for a, wrapped := range s.keys {
		if wrapped != nil {
			all = append(all, a)
		}
	}
	return all, nil
}

// Replace keeps the key wrapped otherwise; see KeyStore.
func (s *Memory) Replace(_ context.Context, a subjects.Aggregate, old, wrapped []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.keys[a]; now == nil || !bytes.Equal(now, old) {
		return ErrKeyChanged
	}
	s.keys[a] = wrapped
	return nil
}

// Destroy removes the key; see KeyStore.
func (s *Memory) Destroy(_ context.Context, a subjects.Aggregate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[a] = nil
	return nil
}
