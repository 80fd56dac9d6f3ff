// Package seal keeps secret values readable only as long as their aggregate lives:
// they are encrypted (AES-256-GCM, by Tink) with a data key of the aggregate's own,
// which is kept, wrapped by the master key, outside the event log. Destroying the
// data key leaves the log whole and its secrets gone.
package seal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/slipway-paas/slipway/libs/subjects"
)

var (
	// ErrDestroyed is returned when the aggregate's data key is gone: what was sealed
	// stays sealed, and nothing can be sealed any more.
	ErrDestroyed = errors.New("the data key has been destroyed")
	// ErrUnreadable is returned for what was not sealed for this aggregate with this
	// master key, or has been altered.
	ErrUnreadable = errors.New("the sealed values cannot be read")
)

// Sealer seals and opens. It may be used concurrently.
type Sealer struct {
	master *Keyring
	keys   KeyStore
}

// New seals with data keys from keys, wrapped by master; see Master.
func New(master *Keyring, keys KeyStore) *Sealer { return &Sealer{master: master, keys: keys} }

// Seal encrypts values for the aggregate, whose data key is made when it has none,
// and returns their names, sorted, beside the ciphertext. Errors: ErrDestroyed, the
// key store's.
func (s *Sealer) Seal(ctx context.Context, a subjects.Aggregate, values map[string]string) (names []string, ciphertext []byte, err error) {
	for name, value := range values {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, nil, fmt.Errorf("seal for %s: a name or value is not UTF-8", a)
		}
	}
	plain, err := json.Marshal(values)
	if err != nil {
		return nil, nil, fmt.Errorf("seal for %s: %w", a, err)
	}
	key, err := s.dataKey(ctx, a)
	if err != nil {
		return nil, nil, fmt.Errorf("seal for %s: %w", a, err)
	}
	if ciphertext, err = key.Encrypt(plain, associated(a)); err != nil {
		return nil, nil, fmt.Errorf("seal for %s: %w", a, err)
	}
	return slices.Sorted(maps.Keys(values)), ciphertext, nil
}

// Open decrypts what Seal has made for the same aggregate. Errors: ErrDestroyed,
// ErrUnreadable, the key store's.
func (s *Sealer) Open(ctx context.Context, a subjects.Aggregate, ciphertext []byte) (map[string]string, error) {
	wrapped, err := s.keys.Get(ctx, a)
	if errors.Is(err, ErrNoKey) {
		err = ErrDestroyed
	}
	if err != nil {
		return nil, fmt.Errorf("open for %s: %w", a, err)
	}
	key, err := s.unwrap(ctx, a, wrapped)
	if err != nil {
		return nil, fmt.Errorf("open for %s: %w", a, err)
	}
	plain, err := key.Decrypt(ciphertext, associated(a))
	if err != nil {
		return nil, fmt.Errorf("open for %s: %w", a, ErrUnreadable)
	}
	var values map[string]string
	if err := json.Unmarshal(plain, &values); err != nil {
		return nil, fmt.Errorf("open for %s: %w", a, ErrUnreadable)
	}
	return values, nil
}

// Destroy forgets the aggregate's data key for ever; there or not. Errors: the key
// store's.
func (s *Sealer) Destroy(ctx context.Context, a subjects.Aggregate) error {
	if err := s.keys.Destroy(ctx, a); err != nil {
		return fmt.Errorf("destroy the data key of %s: %w", a, err)
	}
	return nil
}

func (s *Sealer) dataKey(ctx context.Context, a subjects.Aggregate) (tink.AEAD, error) {
	wrapped, err := s.wrapped(ctx, a, aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	return s.unwrap(ctx, a, wrapped)
}

// wrapped returns the aggregate's key as it is kept; when it has none, one is made.
func (s *Sealer) wrapped(ctx context.Context, a subjects.Aggregate, template *tinkpb.KeyTemplate) ([]byte, error) {
	wrapped, err := s.keys.Get(ctx, a)
	if errors.Is(err, ErrNoKey) {
		wrapped, err = s.create(ctx, a, template)
	}
	if errors.Is(err, ErrNoKey) {
		return nil, ErrDestroyed
	}
	return wrapped, err
}

// create makes a data key, unless somebody else was faster.
func (s *Sealer) create(ctx context.Context, a subjects.Aggregate, template *tinkpb.KeyTemplate) ([]byte, error) {
	handle, err := keyset.NewHandle(template)
	if err != nil {
		return nil, fmt.Errorf("make a data key: %w", err)
	}
	before, err := s.master.forWrapping()
	if err != nil {
		return nil, err
	}
	wrapped, err := wrapWith(before, a, handle)
	if err != nil {
		return nil, err
	}
	err = s.keys.Create(ctx, a, wrapped)
	if errors.Is(err, ErrKeyExists) {
		// Somebody else has made it, or has destroyed it.
		return s.keys.Get(ctx, a)
	}
	if err != nil {
		return nil, err
	}
	// A rotation that began meanwhile may have looked at all data keys before this one
	// was there, and drop the master key that wraps it.
	if after, err := s.master.forWrapping(); err != nil {
		return nil, err
	} else if after.newest().id == before.newest().id {
		return wrapped, nil
	}
	if _, err := s.rewrap(ctx, a); err != nil {
		return nil, err
	}
	return s.keys.Get(ctx, a)
}

// unwrapped is the aggregate's key, which was wrapped like this a moment ago. Errors:
// ErrDestroyed, ErrUnreadable, the key store's.
func (s *Sealer) unwrapped(ctx context.Context, a subjects.Aggregate, wrapped []byte) (*keyset.Handle, error) {
	for {
		handle, unreadable := unwrapWith(s.master.forUnwrapping(), a, wrapped)
		if unreadable == nil {
			return handle, nil
		}
		// Since it was read, it may have been rewrapped and its master key dropped.
		now, err := s.keys.Get(ctx, a)
		switch {
		case errors.Is(err, ErrNoKey):
			return nil, ErrDestroyed
		case err != nil:
			return nil, err
		case bytes.Equal(now, wrapped):
			return nil, unreadable
		}
		wrapped = now
	}
}

func (s *Sealer) unwrap(ctx context.Context, a subjects.Aggregate, wrapped []byte) (tink.AEAD, error) {
	handle, err := s.unwrapped(ctx, a, wrapped)
	if err != nil {
		return nil, err
	}
	key, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("use the data key: %w", err)
	}
	return key, nil
}

// associated binds keys and ciphertexts to their aggregate: moved to another one
// they cannot be read.
func associated(a subjects.Aggregate) []byte { return []byte(subjects.DataKey(a)) }
