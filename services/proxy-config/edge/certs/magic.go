package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/slipway-paas/slipway/libs/edgetls"
)

// inMemory is how many certificates are kept in memory; others are loaded again when they
// are asked for.
const inMemory = 10_000

// magic is CertMagic as the keeper uses it: its own cache, and a configuration for names
// and one for the wildcard, which are proved in different ways.
type magic struct {
	cache    *certmagic.Cache
	storage  certmagic.Storage
	single   *certmagic.Config
	wildcard *certmagic.Config
	star     string
}

func (m *magic) config(subject string) *certmagic.Config {
	if m.wildcard != nil && subject == m.star {
		return m.wildcard
	}
	return m.single
}

// cached is the certificate in memory that lasts longest.
func (m *magic) cached(subject string) *certmagic.Certificate {
	var best *certmagic.Certificate
	for _, cert := range m.cache.AllMatchingCertificates(subject) {
		if len(cert.Names) == 1 && cert.Names[0] == subject && (best == nil || expiry(cert).After(expiry(*best))) {
			best = &cert
		}
	}
	return best
}

// Open sets CertMagic up with a storage. internal issues the certificates where no ACME CA
// does. Errors: what cannot be read of the settings' files.
func (k *Keeper) Open(storage certmagic.Storage, internal certmagic.Issuer, log *zap.Logger) error {
	if !log.Core().Enabled(zap.DebugLevel) {
		// It tells of every step of every certificate; the keeper tells how they end.
		log = log.WithOptions(zap.IncreaseLevel(zap.WarnLevel))
	}
	m := &k.magic
	m.storage, m.star = storage, k.wildcard()
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(c certmagic.Certificate) (*certmagic.Config, error) { return m.config(c.Names[0]), nil },
		Capacity:         inMemory,
		Logger:           log,
	})
	settings := certmagic.Config{
		Storage: storage, OnEvent: k.event, Logger: log,
		KeySource: certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		// It would write, read and delete a value before each order.
		DisableStorageCheck: true,
	}
	if k.cfg.TLS.TLS != edgetls.ACME {
		settings.Issuers = []certmagic.Issuer{internal}
		m.single = certmagic.New(m.cache, settings)
		return nil
	}
	template, err := k.account(log)
	if err != nil {
		return err
	}
	m.single = k.acme(settings, template)
	if k.cfg.TLS.Wildcard {
		template.DNS01Solver = &records{nats: k.cfg.NATS}
		m.wildcard = k.acme(settings, template)
	}
	return nil
}

func (k *Keeper) acme(settings certmagic.Config, template certmagic.ACMEIssuer) *certmagic.Config {
	asked := &atomic.Pointer[time.Time]{}
	template.Logger = template.Logger.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return &retryAfter{Core: c, asked: asked}
	}))
	settings.Issuers = []certmagic.Issuer{}
	config := certmagic.New(k.magic.cache, settings)
	config.Issuers = []certmagic.Issuer{&paced{ACMEIssuer: certmagic.NewACMEIssuer(config, template), keeper: k, asked: asked}}
	return config
}

// account is what all orders have in common.
func (k *Keeper) account(log *zap.Logger) (certmagic.ACMEIssuer, error) {
	c := k.cfg.TLS.ACME
	certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow = c.Orders, 10*time.Second
	template := certmagic.ACMEIssuer{
		CA: c.Directory, Email: c.Email, Agreed: true, CertObtainTimeout: attemptTakes, Logger: log,
	}
	// Challenges are answered where apps are served. CertMagic looks whether somebody
	// listens there; elsewhere it would listen itself.
	host, port, err := net.SplitHostPort(k.cfg.HTTPS)
	if err == nil {
		template.ListenHost = host
		template.AltTLSALPNPort, err = strconv.Atoi(port)
	}
	if err != nil {
		return template, fmt.Errorf("--https: %w", err)
	}
	if _, port, err = net.SplitHostPort(k.cfg.HTTP); err == nil {
		template.AltHTTPPort, err = strconv.Atoi(port)
	}
	if err != nil {
		return template, fmt.Errorf("--http: %w", err)
	}
	if c.CARoot != "" {
		text, err := os.ReadFile(c.CARoot)
		if err != nil {
			return template, fmt.Errorf("--acme-ca-root: %w", err)
		}
		template.TrustedRoots = x509.NewCertPool()
		if !template.TrustedRoots.AppendCertsFromPEM(text) {
			return template, fmt.Errorf("--acme-ca-root: there is no certificate in PEM in %s", c.CARoot)
		}
	}
	if c.EABKeyID != "" {
		key, err := c.EABKey()
		if err != nil {
			return template, err
		}
		template.ExternalAccount = &acme.EAB{KeyID: c.EABKeyID, MACKey: key}
	}
	return template, nil
}

// paced asks the CA only while the gate is open, and says what its failures mean.
type paced struct {
	*certmagic.ACMEIssuer
	keeper *Keeper
	asked  *atomic.Pointer[time.Time]
}

// PreCheck implements certmagic.PreChecker: the lock of the name is held.
func (p *paced) PreCheck(ctx context.Context, names []string, _ bool) error {
	if err := p.keeper.gate.check(time.Now()); err != nil {
		return err
	}
	for _, name := range names {
		if err := p.keeper.recall(ctx, name); err != nil {
			return err
		}
	}
	// Never interactively: it would ask a terminal for an address.
	return p.ACMEIssuer.PreCheck(ctx, names, false)
}

// Issue implements certmagic.Issuer.
func (p *paced) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	cert, err := p.ACMEIssuer.Issue(ctx, csr)
	if err == nil {
		p.keeper.gate.passed()
		return cert, nil
	}
	now, asked := time.Now(), time.Time{}
	if at := p.asked.Load(); at != nil && at.Before(now.Add(longestWord)) {
		asked = *at
	}
	f := judge(err, asked)
	if f.down && !errors.Is(ctx.Err(), context.Canceled) {
		p.keeper.gate.failed(now, f)
	}
	return nil, f
}

var (
	_ certmagic.Issuer            = (*paced)(nil)
	_ certmagic.PreChecker        = (*paced)(nil)
	_ certmagic.RenewalInfoGetter = (*paced)(nil)
	_ acmez.Solver                = (*records)(nil)
)
