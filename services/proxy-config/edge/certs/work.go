package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/caddyserver/certmagic"
)

// enqueue has a subject worked on; k.mu is held. What it returns is closed when the work
// that was asked for, now or before, ended.
func (k *Keeper) enqueue(subject string, visitor bool) <-chan struct{} {
	st := k.states[subject]
	if st == nil {
		st = &state{}
		k.states[subject] = st
	}
	if st.running {
		return st.done
	}
	if !st.queued {
		st.queued, st.done = true, make(chan struct{})
		if !visitor {
			k.ahead = append(k.ahead, subject)
		}
	}
	// A visitor's name may stand in both queues; whoever takes it first works on it.
	if visitor && !st.urgent {
		st.urgent = true
		k.urgent = append(k.urgent, subject)
	}
	k.work.Signal()
	return st.done
}

// next waits for work and takes it. An ahead subject leaves some workers to visitors only
// by order: urgent ones are always taken first.
func (k *Keeper) next() (subject string, st *state, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		for len(k.gone) > 0 {
			k.drop(pop(&k.gone))
		}
		for len(k.urgent)+len(k.ahead) > 0 && !k.closed {
			queue := &k.urgent
			if len(*queue) == 0 {
				queue = &k.ahead
			}
			subject = pop(queue)
			if st = k.states[subject]; st != nil && st.queued {
				st.queued, st.urgent, st.running = false, false, true
				return subject, st, true
			}
		}
		if k.closed {
			return "", nil, false
		}
		k.work.Wait()
	}
}

func pop(queue *[]string) string {
	first := (*queue)[0]
	*queue = (*queue)[1:]
	if len(*queue) == 0 {
		*queue = nil
	}
	return first
}

// drop forgets a host that went, unless it is back; k.mu is held.
func (k *Keeper) drop(subject string) {
	st := k.states[subject]
	if st == nil {
		return
	}
	if _, back := k.table.Lookup(subject); back {
		return
	}
	if st.running {
		// The worker that has it forgets it at the end.
		return
	}
	if st.queued {
		close(st.done)
	}
	delete(k.states, subject)
	k.magic.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: subject}})
}

func (k *Keeper) worker(ctx context.Context) {
	for {
		subject, st, ok := k.next()
		if !ok {
			return
		}
		limited, cancel := context.WithTimeout(ctx, attemptTakes)
		err := k.secure(limited, subject)
		cancel()
		if ctx.Err() == nil {
			k.note(ctx, subject, st, err)
		}
		k.mu.Lock()
		st.running = false
		close(st.done)
		if k.Allowed(subject) != nil {
			k.drop(subject)
		}
		k.mu.Unlock()
	}
}

// secure has the certificate in memory when it returns nil: from the storage, or from the
// issuer, and renewed where it was time.
func (k *Keeper) secure(ctx context.Context, subject string) error {
	if err := k.Allowed(subject); err != nil {
		return err
	}
	config := k.magic.config(subject)
	cert, err := config.CacheManagedCertificate(ctx, subject)
	if err == nil {
		return k.loaded(ctx, subject, config, cert)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := config.ObtainCertSync(ctx, subject); err != nil {
		return err
	}
	cert, err = config.CacheManagedCertificate(ctx, subject)
	if err != nil {
		return fmt.Errorf("load what was got: %w", err)
	}
	k.has(subject, cert)
	return nil
}

// loaded looks after a certificate that was there already.
func (k *Keeper) loaded(ctx context.Context, subject string, config *certmagic.Config, cert certmagic.Certificate) error {
	if k.has(subject, cert) {
		k.tell(subject, nil, report{notAfter: expiry(cert)})
	}
	if !cert.NeedsRenewal(config) {
		return nil
	}
	if !cert.Expired() {
		// It serves: who waits for it need not wait for the next one.
		k.mu.Lock()
		if st := k.states[subject]; st != nil && st.running {
			close(st.done)
			st.done = make(chan struct{})
		}
		k.mu.Unlock()
	}
	if err := config.RenewCertSync(ctx, subject, false); err != nil {
		return err
	}
	renewed, err := config.CacheManagedCertificate(ctx, subject)
	if err != nil {
		return fmt.Errorf("load what was renewed: %w", err)
	}
	if renewed.Hash() != cert.Hash() {
		k.magic.cache.Remove([]string{cert.Hash()})
	}
	k.has(subject, renewed)
	return nil
}

// has notes a certificate that is in memory, and reports whether somebody may wait to hear
// of it: whoever records the state of custom domains may have been away when it was got.
func (k *Keeper) has(subject string, cert certmagic.Certificate) bool {
	route, _ := k.table.Lookup(subject)
	allowed := k.Allowed(subject) == nil
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.states[subject]
	if st == nil && !allowed {
		return false
	}
	if st == nil {
		st = &state{}
		k.states[subject] = st
	}
	first := !st.held
	st.held, st.custom, st.expires = true, custom(route), expiry(cert)
	if cert.Leaf != nil {
		st.renewAt = cert.Leaf.NotAfter.Add(-cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore) / 4)
	}
	return first && st.custom
}

// note keeps how an attempt ended and when the next one is.
func (k *Keeper) note(ctx context.Context, subject string, st *state, err error) {
	now := time.Now()
	if err == nil {
		k.mu.Lock()
		st.failures, st.err, st.retryAt, st.told = 0, nil, time.Time{}, ""
		k.mu.Unlock()
		return
	}
	if errors.Is(err, ErrNotOurs) {
		k.mu.Lock()
		st.err, st.retryAt = err, now.Add(k.cfg.TLS.ACME.Retry)
		k.mu.Unlock()
		return
	}
	why := explain(err)
	known := errors.Is(err, errRemembered)
	k.mu.Lock()
	switch {
	case known:
		st.retryAt = why.retryAt
	case why.shared:
		st.retryAt = later(now.Add(sharedPause), why.retryAt)
	default:
		st.failures++
		st.retryAt = later(now.Add(pause(k.cfg.TLS.ACME.Retry, st.failures)), why.retryAt)
	}
	st.err = err
	silent := known || why.shared && st.told == why.sentence
	st.told = why.sentence
	at, failures, renewal := st.retryAt, st.failures, st.held
	k.mu.Unlock()
	if silent {
		return
	}
	if !why.shared {
		k.remember(ctx, subject, remembered{Failures: failures, RetryAt: at, Why: why.sentence})
	}
	k.log.Warn("a certificate could not be had", "name", subject, "why", why.sentence, "failures", failures, "again", at)
	k.tell(subject, err, report{sentence: why.sentence, retryAt: at, renewal: renewal})
}

// clock asks again for what failed, when its time comes, and for what should be renewed.
func (k *Keeper) clock(ctx context.Context) {
	second, sweep := time.NewTicker(time.Second), time.NewTicker(sweepEvery)
	defer second.Stop()
	defer sweep.Stop()
	for {
		renewals := false
		select {
		case <-ctx.Done():
			return
		case <-second.C:
		case <-sweep.C:
			renewals = true
		}
		now := time.Now()
		k.mu.Lock()
		for subject, st := range k.states {
			due := st.err != nil && now.After(st.retryAt) || renewals && st.held && now.After(st.renewAt)
			if due && !st.queued && !st.running {
				k.enqueue(subject, false)
			}
		}
		k.mu.Unlock()
	}
}
