// Package certstore is Caddy's storage in NATS: what edges must share to serve HTTPS for
// the same hosts, certificates, their keys, the account at the CA, the answers to its
// challenges, and the locks that make one edge do what the others wait for.
//
// Values are sealed with a key that only edges have, in NATS and in the copies on this
// edge's disk. With NATS away the copies of certificates are still read, so that an edge
// that is started meanwhile serves; nothing is written and no lock is had until it is
// back.
package certstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// requestTimeout bounds each question to NATS.
const requestTimeout = 3 * time.Second

var (
	// ErrAway is returned while NATS cannot be asked and there is no copy on this disk.
	ErrAway = errors.New("the store of certificates cannot be reached")
	// ErrOtherKey is returned for what was sealed with a key that this edge does not have.
	ErrOtherKey = errors.New("it was sealed with another key: give every edge the same --certificate-key file")
)

// Config says what the storage works with.
type Config struct {
	// NATS is the edge's connection, which may be away at any time.
	NATS *nats.Conn
	// Box seals what is stored.
	Box *seal.Box
	// Dir keeps copies of certificates for when NATS is away.
	Dir string
	// Owner says in a lock who holds it.
	Owner string
	Log   *slog.Logger
}

// Storage implements certmagic.Storage. It may be used concurrently.
type Storage struct {
	cfg   Config
	js    jetstream.JetStream
	local local

	mu     sync.Mutex
	values jetstream.KeyValue // opened when first needed
	locks  jetstream.KeyValue
	held   map[string]*lease
}

// New keeps copies in cfg.Dir, which is made. NATS need not be there yet.
func New(cfg Config) (*Storage, error) {
	js, err := jetstream.New(cfg.NATS)
	if err != nil {
		return nil, fmt.Errorf("set up JetStream for certificates: %w", err)
	}
	copies, err := openLocal(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &Storage{cfg: cfg, js: js, local: copies, held: map[string]*lease{}}, nil
}

// checkPath holds a value that every edge must be able to open.
const checkPath = "slipway/check"

// Check reports whether this edge can read what the others store. Errors: ErrOtherKey,
// ErrAway.
func (s *Storage) Check(ctx context.Context) error {
	_, err := s.Load(ctx, checkPath)
	if errors.Is(err, fs.ErrNotExist) {
		err = s.Store(ctx, checkPath, []byte("every edge opens this"))
	}
	return err
}

// Store implements certmagic.Storage.
func (s *Storage) Store(ctx context.Context, path string, value []byte) error {
	sealed, err := s.cfg.Box.Seal(value, path)
	if err != nil {
		return fmt.Errorf("store %s: %w", path, err)
	}
	err = s.ask(ctx, &s.values, subjects.BucketCertificates, func(ctx context.Context, bucket jetstream.KeyValue) error {
		_, err := bucket.Put(ctx, subjects.CertificateKey(path), sealed)
		return err
	})
	if err != nil {
		return fmt.Errorf("store %s: %w", path, err)
	}
	s.keep(path, sealed)
	return nil
}

// Load implements certmagic.Storage. Errors: fs.ErrNotExist, ErrAway, ErrOtherKey.
func (s *Storage) Load(ctx context.Context, path string) ([]byte, error) {
	value, _, err := s.load(ctx, path)
	return value, err
}

func (s *Storage) load(ctx context.Context, path string) (value []byte, modified time.Time, err error) {
	sealed, modified, err := s.sealed(ctx, path)
	if err != nil {
		return nil, modified, fmt.Errorf("load %s: %w", path, err)
	}
	if value, err = s.cfg.Box.Open(sealed, path); err != nil {
		return nil, modified, fmt.Errorf("load %s: %w", path, ErrOtherKey)
	}
	return value, modified, nil
}

// sealed is the value as NATS has it, or when NATS cannot be asked as the disk has it.
func (s *Storage) sealed(ctx context.Context, path string) (value []byte, modified time.Time, err error) {
	err = s.ask(ctx, &s.values, subjects.BucketCertificates, func(ctx context.Context, bucket jetstream.KeyValue) error {
		entry, err := bucket.Get(ctx, subjects.CertificateKey(path))
		if err == nil {
			value, modified = entry.Value(), entry.Created()
		}
		return err
	})
	switch {
	case err == nil:
		s.keep(path, value)
	case errors.Is(err, fs.ErrNotExist):
		s.forget(path)
	case errors.Is(err, ErrAway) && kept(path):
		if local, at, localErr := s.local.load(path); localErr == nil {
			return local, at, nil
		}
	}
	return value, modified, err
}

// Exists implements certmagic.Storage: also true for a path that others are below.
func (s *Storage) Exists(ctx context.Context, path string) bool {
	if _, _, err := s.sealed(ctx, path); !errors.Is(err, fs.ErrNotExist) {
		return err == nil
	}
	below, err := s.below(ctx, path)
	return err == nil && len(below) > 0
}

// Stat implements certmagic.Storage. Errors: as Load.
func (s *Storage) Stat(ctx context.Context, path string) (certmagic.KeyInfo, error) {
	value, modified, err := s.load(ctx, path)
	if err == nil {
		return certmagic.KeyInfo{Key: path, Modified: modified, Size: int64(len(value)), IsTerminal: true}, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if below, listErr := s.below(ctx, path); listErr == nil && len(below) > 0 {
			return certmagic.KeyInfo{Key: path}, nil
		}
	}
	return certmagic.KeyInfo{}, err
}

// Delete implements certmagic.Storage: the path and all below it.
func (s *Storage) Delete(ctx context.Context, path string) error {
	paths, err := s.below(ctx, path)
	if err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	for _, path := range append(paths, path) {
		s.forget(path)
		err := s.ask(ctx, &s.values, subjects.BucketCertificates, func(ctx context.Context, bucket jetstream.KeyValue) error {
			return bucket.Purge(ctx, subjects.CertificateKey(path))
		})
		if err != nil {
			return fmt.Errorf("delete %s: %w", path, err)
		}
	}
	return nil
}

// ask does something with a bucket, within requestTimeout, and tells the errors of NATS
// apart from what the bucket answered.
func (s *Storage) ask(ctx context.Context, known *jetstream.KeyValue, name string, do func(context.Context, jetstream.KeyValue) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.cfg.NATS.IsConnected() {
		return ErrAway
	}
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	bucket, err := s.bucket(limited, known, name)
	if err == nil {
		err = do(limited, bucket)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return fs.ErrNotExist
	case errors.Is(err, jetstream.ErrKeyExists):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

func (s *Storage) bucket(ctx context.Context, known *jetstream.KeyValue, name string) (jetstream.KeyValue, error) {
	s.mu.Lock()
	bucket := *known
	s.mu.Unlock()
	if bucket != nil {
		return bucket, nil
	}
	bucket, err := s.js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	s.mu.Lock()
	*known = bucket
	s.mu.Unlock()
	return bucket, nil
}

var (
	_ certmagic.Storage   = (*Storage)(nil)
	_ certmagic.TryLocker = (*Storage)(nil)
)
