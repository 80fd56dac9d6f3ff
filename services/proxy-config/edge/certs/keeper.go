// Package certs gets, keeps and renews the certificates of the hosts in the route table,
// ahead of their first visitor, with CertMagic. It gets none for anybody else.
//
// Each name is got by one edge: they share a storage and its locks, and the others load
// what one stored. Work is done by a bounded number of workers; who waits for a handshake
// goes first, and waits a bounded time. What failed is tried again when its time comes, by
// what the CA said and longer with each failure; until then a handshake fails at once.
package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/nats-io/nats.go"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/edgetls"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

const (
	// workers is how many names are worked on at once: most of the time they wait for
	// the CA.
	workers = 32
	// visitorWaits is how long a handshake waits for its certificate. The server gives a
	// handshake ten seconds.
	visitorWaits = 9 * time.Second
	// visitorLoads is how many handshakes load at once what is stored already.
	visitorLoads = 64
	// attemptTakes bounds one order.
	attemptTakes = 2 * time.Minute
	// sweepEvery is between two looks for certificates that should be renewed and are not
	// in memory; those in memory CertMagic looks after.
	sweepEvery = 10 * time.Minute
	// sharedPause is at least between two attempts that fail for all names alike.
	sharedPause = 5 * time.Second
)

// ErrNotOurs is returned for a name that no certificate is got for.
var ErrNotOurs = errors.New("no app has this host")

// Config says whose certificates are got, and where.
type Config struct {
	EdgeID     string
	TLS        edgetls.Settings
	BaseDomain string
	// HTTP and HTTPS are the listeners' addresses, where challenges are answered.
	HTTP, HTTPS string
	// NATS is where reports go, and requests for DNS records; it may be away.
	NATS *nats.Conn
}

// Keeper keeps certificates. Open it once, then Run it; Certificate may be called from
// any goroutine from then on.
type Keeper struct {
	cfg   Config
	table *table.Table
	log   *slog.Logger
	gate  *gate
	magic magic
	count figures
	loads chan struct{} // has room for the loads that handshakes make at once

	mu     sync.Mutex
	work   *sync.Cond
	states map[string]*state // by subject
	urgent []string          // subjects that a handshake waits for
	ahead  []string          // subjects that nobody waits for yet
	gone   []string          // subjects whose route went
	closed bool
}

// state is what is known of one certificate.
type state struct {
	custom   bool
	queued   bool
	urgent   bool // it stands among the urgent ones
	running  bool
	done     chan struct{} // closed when the attempt that is queued or running ended
	held     bool
	expires  time.Time
	renewAt  time.Time
	failures int
	err      error
	retryAt  time.Time
	told     string // the failure that was reported last
}

// New keeps certificates for the hosts of the table. Observe the table with it before the
// table is filled.
func New(cfg Config, t *table.Table, log *slog.Logger) *Keeper {
	k := &Keeper{cfg: cfg, table: t, log: log, gate: newGate(cfg.TLS.ACME.Retry / 4), count: newFigures(), loads: make(chan struct{}, visitorLoads), states: map[string]*state{}}
	k.work = sync.NewCond(&k.mu)
	return k
}

// Run works until ctx ends and every worker is done.
func (k *Keeper) Run(ctx context.Context) {
	if k.cfg.TLS.Wildcard {
		k.mu.Lock()
		k.enqueue(k.wildcard(), false)
		k.mu.Unlock()
	}
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { k.worker(ctx) })
	}
	all.Go(func() { k.clock(ctx) })
	<-ctx.Done()
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.work.Broadcast()
	all.Wait()
	k.magic.cache.Stop()
}

// Observe is told of each host that is new in the table or got another kind, and with nil
// of each that went. It does not wait.
func (k *Keeper) Observe(host string, route *routingv1.Route) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if route == nil {
		if k.states[host] != nil {
			k.gone = append(k.gone, host)
			k.work.Signal()
		}
		return
	}
	subject, ok := k.subject(host, route)
	if !ok || subject != host || !k.getsAhead(route) {
		return
	}
	k.enqueue(subject, false)
}

// getsAhead reports whether the certificate is got before anybody asks for it. The CA of
// the edge's own answers in a moment, so only those are got that somebody must be told of.
func (k *Keeper) getsAhead(route *routingv1.Route) bool {
	return k.cfg.TLS.TLS == edgetls.ACME || custom(route)
}

// Allowed returns nil for a name that a certificate of its own may be got for: a host in
// the table that no wildcard covers. A host that is neither the platform's, under the base
// domain, nor somebody's verified domain gets none from a public CA. Errors: ErrNotOurs.
func (k *Keeper) Allowed(name string) error {
	if k.cfg.TLS.Wildcard && name == k.wildcard() {
		return nil
	}
	host := table.Host(name)
	route, ok := k.table.Lookup(host)
	if !ok {
		return fmt.Errorf("%s: %w", name, ErrNotOurs)
	}
	switch subject, ok := k.subject(host, route); {
	case !ok:
		return fmt.Errorf("%s is neither under %s nor a verified domain: %w", name, k.cfg.BaseDomain, ErrNotOurs)
	case subject != host:
		return fmt.Errorf("%s is covered by the certificate of %s: %w", name, subject, ErrNotOurs)
	}
	return nil
}

// subject is the name on the certificate that the host takes, if it may have any.
func (k *Keeper) subject(host string, route *routingv1.Route) (string, bool) {
	if custom(route) || k.cfg.TLS.TLS != edgetls.ACME || k.cfg.BaseDomain == "" {
		return host, true
	}
	label, under := strings.CutSuffix(host, "."+k.cfg.BaseDomain)
	if !under || label == "" {
		return "", false
	}
	// A wildcard stands for one label (RFC 6125, 6.4.3).
	if k.cfg.TLS.Wildcard && !strings.Contains(label, ".") {
		return k.wildcard(), true
	}
	return host, true
}

func (k *Keeper) wildcard() string { return "*." + k.cfg.BaseDomain }

func custom(route *routingv1.Route) bool {
	return route.GetKind() == routingv1.RouteKind_ROUTE_KIND_CUSTOM_DOMAIN
}

// Certificate is for a handshake: the certificate of a host in the table, got now when it
// is not there yet. It waits at most visitorWaits, and not at all for one that could not
// be had a moment ago. Errors: ErrNotOurs, or why there is none.
func (k *Keeper) Certificate(ctx context.Context, serverName string) (*tls.Certificate, error) {
	host := table.Host(serverName)
	route, ok := k.table.Lookup(host)
	if !ok {
		return nil, fmt.Errorf("%s: %w", host, ErrNotOurs)
	}
	subject, ok := k.subject(host, route)
	if !ok {
		return nil, k.Allowed(host)
	}
	cert := k.magic.cached(subject)
	if cert != nil && !cert.Expired() {
		return &cert.Certificate, nil
	}
	if err := k.resting(subject); err != nil {
		return nil, err
	}
	// What another edge got, or this one before it was started, does not wait for workers:
	// a CA that hangs may have them all.
	if cert, err := k.load(ctx, subject); err == nil && !cert.Expired() {
		return &cert.Certificate, nil
	}
	err := k.await(ctx, subject)
	if fresh := k.magic.cached(subject); fresh != nil {
		return &fresh.Certificate, nil
	}
	if err == nil {
		err = fmt.Errorf("%s: its certificate went again", subject)
	}
	return nil, err
}

// resting returns why there is no certificate, while it is not yet time to try again.
func (k *Keeper) resting(subject string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.states[subject]
	if st == nil || st.queued || st.running || st.err == nil || time.Now().After(st.retryAt) {
		return nil
	}
	return fmt.Errorf("%s has no certificate and is tried again at %s: %w", subject, st.retryAt.UTC().Format(time.RFC3339), st.err)
}

// load brings a certificate from the storage into memory.
func (k *Keeper) load(ctx context.Context, subject string) (certmagic.Certificate, error) {
	select {
	case k.loads <- struct{}{}:
	case <-ctx.Done():
		return certmagic.Certificate{}, ctx.Err()
	}
	defer func() { <-k.loads }()
	cert, err := k.magic.config(subject).CacheManagedCertificate(ctx, subject)
	if err == nil && k.has(subject, cert) {
		k.tell(subject, nil, report{notAfter: expiry(cert)})
	}
	return cert, err
}

func (k *Keeper) await(ctx context.Context, subject string) error {
	k.mu.Lock()
	done := k.enqueue(subject, true)
	k.mu.Unlock()
	timer := time.NewTimer(visitorWaits)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		return fmt.Errorf("%s: its certificate is not had after %s", subject, visitorWaits)
	case <-ctx.Done():
		return ctx.Err()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if st := k.states[subject]; st != nil {
		return st.err
	}
	return ErrNotOurs
}

// expiry is when the certificate ends.
func expiry(cert certmagic.Certificate) time.Time {
	if cert.Leaf == nil {
		return time.Time{}
	}
	return cert.Leaf.NotAfter
}
