package certstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// renewEvery is a third of the time after which the lock of an edge that died is free.
	renewEvery = natsconn.CertificateLockTTL / 3
	// Between two looks at a lock that another holds.
	firstLook, lastLook = 20 * time.Millisecond, 500 * time.Millisecond
)

// lease is a lock that is held: its holder says again and again that it lives.
type lease struct {
	revision uint64
	stop     context.CancelFunc
	stopped  chan struct{}
}

// Lock implements certmagic.Locker. It waits as long as ctx lasts, not when NATS is
// away. Errors: ErrAway, ctx's.
func (s *Storage) Lock(ctx context.Context, name string) error {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		if had, err := s.TryLock(ctx, name); had || err != nil {
			return err
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("wait for the lock %s: %w", name, ctx.Err())
		}
	}
}

// TryLock implements certmagic.TryLocker. Errors: ErrAway, ctx's.
func (s *Storage) TryLock(ctx context.Context, name string) (bool, error) {
	var revision uint64
	err := s.ask(ctx, &s.locks, subjects.BucketCertificateLocks, func(ctx context.Context, bucket jetstream.KeyValue) error {
		var err error
		revision, err = bucket.Create(ctx, subjects.CertificateKey(name), []byte(s.cfg.Owner))
		return err
	})
	if errors.Is(err, jetstream.ErrKeyExists) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", name, err)
	}
	// It is held until Unlock, whatever becomes of the request it was taken for.
	holding, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &lease{revision: revision, stop: stop, stopped: make(chan struct{})}
	s.mu.Lock()
	s.held[name] = l
	s.mu.Unlock()
	go s.hold(holding, name, l)
	return true, nil
}

// hold renews the lease until it is given back, or is another's.
func (s *Storage) hold(ctx context.Context, name string, l *lease) {
	defer close(l.stopped)
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// To its end, in any case: else nobody would know which revision the lock has.
		err := s.ask(context.WithoutCancel(ctx), &s.locks, subjects.BucketCertificateLocks, func(ctx context.Context, bucket jetstream.KeyValue) error {
			revision, err := bucket.Update(ctx, subjects.CertificateKey(name), []byte(s.cfg.Owner), l.revision)
			if err == nil {
				l.revision = revision
			}
			return err
		})
		if errors.Is(err, jetstream.ErrKeyExists) {
			s.cfg.Log.Warn("a lock was lost while it was held", "lock", name)
			return
		}
	}
}

// Unlock implements certmagic.Locker. A lock that has become another's stays so. Errors:
// fs.ErrNotExist when it was not held, ErrAway.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	l := s.held[name]
	delete(s.held, name)
	s.mu.Unlock()
	if l == nil {
		return fmt.Errorf("unlock %s: %w", name, fs.ErrNotExist)
	}
	l.stop()
	<-l.stopped
	err := s.ask(ctx, &s.locks, subjects.BucketCertificateLocks, func(ctx context.Context, bucket jetstream.KeyValue) error {
		return bucket.Delete(ctx, subjects.CertificateKey(name), jetstream.LastRevision(l.revision))
	})
	var refused *jetstream.APIError
	if errors.As(err, &refused) && refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unlock %s: %w", name, err)
	}
	return nil
}
