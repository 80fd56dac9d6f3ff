package ratelimit

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrConflict is returned by Store.Swap when another has written meanwhile.
var ErrConflict = errors.New("another gateway counted first")

// Store is what gateways share. It may forget what is older than the longest window.
type Store interface {
	// Load returns a value and its revision; nil and 0 when there is none.
	Load(ctx context.Context, name string) (value []byte, revision uint64, err error)
	// Swap writes the value when the revision is still the same, 0 for none, and
	// returns the new one. Errors: ErrConflict.
	Swap(ctx context.Context, name string, value []byte, revision uint64) (uint64, error)
}

// KV is a Store in a JetStream key-value bucket, best one in memory that expires.
type KV struct{ bucket jetstream.KeyValue }

// NewKV uses that bucket.
func NewKV(bucket jetstream.KeyValue) KV { return KV{bucket} }

// Load implements Store.
func (s KV) Load(ctx context.Context, name string) ([]byte, uint64, error) {
	entry, err := s.bucket.Get(ctx, name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("load a rate limit's count: %w", err)
	}
	return entry.Value(), entry.Revision(), nil
}

// Swap implements Store.
func (s KV) Swap(ctx context.Context, name string, value []byte, revision uint64) (uint64, error) {
	var after uint64
	var err error
	if revision == 0 {
		after, err = s.bucket.Create(ctx, name, value)
	} else {
		after, err = s.bucket.Update(ctx, name, value, revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return 0, ErrConflict
	}
	if err != nil {
		return 0, fmt.Errorf("write a rate limit's count: %w", err)
	}
	return after, nil
}
