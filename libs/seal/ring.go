package seal

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	aeadsubtle "github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/tink"
)

const (
	masterSize = 32
	// maxMasters is more than a rotation that was asked for again and again leaves.
	maxMasters = 16
	// named begins a ciphertext that says its key, as it does in Tink's own.
	named  = 1
	idSize = 4
)

// masterKey is one AES-256 key that wraps data keys.
type masterKey struct {
	key  []byte
	id   [idSize]byte
	aead tink.AEAD
}

func newMasterKey(key []byte) (masterKey, error) {
	if len(key) != masterSize {
		return masterKey{}, fmt.Errorf("a key has %d bytes, not %d", len(key), masterSize)
	}
	a, err := aeadsubtle.NewAESGCM(key)
	if err != nil {
		return masterKey{}, err
	}
	hash := sha256.Sum256(append([]byte("slipway master key\x00"), key...))
	return masterKey{key: key, id: [idSize]byte(hash[:]), aead: a}, nil
}

func drawMasterKey() (masterKey, error) {
	key := make([]byte, masterSize)
	if _, err := rand.Read(key); err != nil {
		return masterKey{}, fmt.Errorf("draw a key: %w", err)
	}
	return newMasterKey(key)
}

func (k masterKey) name() string { return hex.EncodeToString(k.id[:]) }

// ring are master keys, the newest first. It wraps with the newest and unwraps with
// the one that a ciphertext names.
type ring []masterKey

// parseRing reads a key for each line or comma, the newest first, in base64. A file of
// 32 bytes is one key as it was kept before there could be several.
func parseRing(text []byte) (ring, error) {
	if len(text) == masterSize {
		key, err := newMasterKey(text)
		return ring{key}, err
	}
	var r ring
	for _, field := range strings.FieldsFunc(string(text), func(c rune) bool { return strings.ContainsRune(", \r\n\t", c) }) {
		key, err := base64.StdEncoding.DecodeString(field)
		if err != nil {
			// The error of base64 would tell a part of it.
			return nil, fmt.Errorf("key %d is not base64", len(r)+1)
		}
		k, err := newMasterKey(key)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(r)+1, err)
		}
		if r.has(k) {
			return nil, fmt.Errorf("key %d is there twice", len(r)+1)
		}
		r = append(r, k)
	}
	switch {
	case len(r) == 0:
		return nil, errors.New("there is no key in it")
	case len(r) > maxMasters:
		return nil, fmt.Errorf("there are %d keys in it, and at most %d may be", len(r), maxMasters)
	}
	return r, nil
}

// text is what parseRing reads.
func (r ring) text() []byte {
	var b bytes.Buffer
	for _, k := range r {
		b.WriteString(base64.StdEncoding.EncodeToString(k.key))
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func (r ring) newest() masterKey { return r[0] }

func (r ring) has(k masterKey) bool {
	for _, other := range r {
		if subtle.ConstantTimeCompare(other.key, k.key) == 1 {
			return true
		}
	}
	return false
}

func (r ring) names() []string {
	names := make([]string, len(r))
	for i, k := range r {
		names[i] = k.name()
	}
	return names
}

// with is the ring and those of others that it has not, for unwrapping.
func (r ring) with(others ring) ring {
	all := append(ring{}, r...)
	for _, k := range others {
		if !all.has(k) {
			all = append(all, k)
		}
	}
	return all
}

// Encrypt implements tink.AEAD.
func (r ring) Encrypt(plain, associated []byte) ([]byte, error) {
	k := r.newest()
	out, err := k.aead.Encrypt(plain, associated)
	if err != nil {
		return nil, err
	}
	return append(append([]byte{named}, k.id[:]...), out...), nil
}

// Decrypt implements tink.AEAD.
func (r ring) Decrypt(ciphertext, associated []byte) ([]byte, error) {
	if len(ciphertext) > 1+idSize && ciphertext[0] == named {
		for _, k := range r {
			if !bytes.Equal(ciphertext[1:1+idSize], k.id[:]) {
				continue
			}
			if plain, err := k.aead.Decrypt(ciphertext[1+idSize:], associated); err == nil {
				return plain, nil
			}
		}
	}
	// From before ciphertexts named their key; the first bytes are chance there.
	for _, k := range r {
		if plain, err := k.aead.Decrypt(ciphertext, associated); err == nil {
			return plain, nil
		}
	}
	return nil, ErrUnreadable
}
