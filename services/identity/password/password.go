// Package password hashes passwords with Argon2id (RFC 9106) in PHC form, and bounds how
// many are hashed at once: each takes 19 MiB.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
)

// Bounds of a password, in characters.
const (
	Least = 8
	Most  = 128
)

// Parameters as OWASP recommends them: 19 MiB, two passes, one lane.
const (
	memory  = 19 << 10 // KiB
	passes  = 2
	lanes   = 1
	keySize = 32
	salt    = 16
)

var (
	// ErrBusy is returned when too many passwords wait to be hashed.
	ErrBusy = errors.New("too many passwords are being checked")
	// ErrUnreadable is returned for a hash that is none of this package's.
	ErrUnreadable = errors.New("the password's hash cannot be read")
)

// Hasher hashes passwords. It may be used concurrently.
type Hasher struct {
	turns   chan struct{}
	waiting atomic.Int32
	most    int32
	// nobody is the hash of a password that nobody knows.
	nobody string
}

// NewHasher makes a hasher that works on at most atOnce passwords and lets at most
// waiting others wait for their turn.
func NewHasher(atOnce, waiting int) *Hasher {
	h := &Hasher{turns: make(chan struct{}, max(1, atOnce)), most: int32(waiting)}
	h.nobody = encode(passes, memory, lanes, random(salt), random(keySize))
	return h
}

func random(n int) []byte {
	b := make([]byte, n)
	// crypto/rand.Read never fails: it ends the program when the system has no randomness.
	_, _ = rand.Read(b)
	return b
}

// turn waits for one; done gives it back. Errors: ErrBusy, ctx's.
func (h *Hasher) turn(ctx context.Context) (done func(), err error) {
	if h.waiting.Add(1) > h.most {
		h.waiting.Add(-1)
		return nil, ErrBusy
	}
	defer h.waiting.Add(-1)
	select {
	case h.turns <- struct{}{}:
		return func() { <-h.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Hash returns the password's hash, with a salt of its own. Errors: ErrBusy, ctx's.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	done, err := h.turn(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	s := random(salt)
	return encode(passes, memory, lanes, s, argon2.IDKey([]byte(password), s, passes, memory, lanes, keySize)), nil
}

// Verify reports whether the password has that hash; stale that it was made with other
// parameters than Hash uses now. Errors: ErrUnreadable, ErrBusy, ctx's.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (right, stale bool, err error) {
	p, err := decode(hash)
	if err != nil {
		return false, false, err
	}
	done, err := h.turn(ctx)
	if err != nil {
		return false, false, err
	}
	defer done()
	got := argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.lanes, uint32(len(p.key)))
	stale = p.passes != passes || p.memory != memory || p.lanes != lanes || len(p.key) != keySize
	return subtle.ConstantTimeCompare(got, p.key) == 1, stale, nil
}

// VerifyNobody takes as long as Verify, for an account that there is not. Errors:
// ErrBusy, ctx's.
func (h *Hasher) VerifyNobody(ctx context.Context, password string) error {
	_, _, err := h.Verify(ctx, h.nobody, password)
	return err
}

var base64PHC = base64.RawStdEncoding

func encode(passes, memory uint32, lanes uint8, salt, key []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memory, passes, lanes, base64PHC.EncodeToString(salt), base64PHC.EncodeToString(key))
}

type parameters struct {
	memory, passes uint32
	lanes          uint8
	salt, key      []byte
}

func decode(hash string) (parameters, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return parameters{}, ErrUnreadable
	}
	var p parameters
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.lanes); err != nil {
		return parameters{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	var err, err2 error
	p.salt, err = base64PHC.DecodeString(parts[4])
	p.key, err2 = base64PHC.DecodeString(parts[5])
	// The log is trusted, and still nobody's to exhaust memory with.
	if err != nil || err2 != nil || len(p.key) < 16 || len(p.key) > 128 || p.memory == 0 || p.memory > 1<<20 || p.passes == 0 || p.passes > 64 || p.lanes == 0 {
		return parameters{}, ErrUnreadable
	}
	return p, nil
}
