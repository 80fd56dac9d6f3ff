package module

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// unknownName is what the certificate for unknown hosts is for: a name that nobody
// can have (RFC 6761).
const unknownName = "unknown-host.invalid"

// UnknownCert gives all hosts that are not in the table one certificate, made at
// start, so that whoever goes on past the warning reads that there is no such app.
// None is ever made for a name that a stranger chose.
type UnknownCert struct {
	table       *table.Table
	certificate *tls.Certificate
}

// CaddyModule implements caddy.Module.
func (u *UnknownCert) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.get_certificate." + UnknownHosts,
		New: func() caddy.Module { return &UnknownCert{table: u.table} },
	}
}

// Provision implements caddy.Provisioner.
func (u *UnknownCert) Provision(caddy.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making the key for unknown hosts: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "Slipway: no app has this host"},
		DNSNames:     []string{unknownName},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("making the certificate for unknown hosts: %w", err)
	}
	u.certificate = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return nil
}

// GetCertificate implements certmagic.Manager: nil for hosts that have their own.
func (u *UnknownCert) GetCertificate(_ context.Context, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if _, known := u.table.Lookup(table.Host(hello.ServerName)); known {
		return nil, nil
	}
	return u.certificate, nil
}

var (
	_ caddy.Provisioner = (*UnknownCert)(nil)
	_ certmagic.Manager = (*UnknownCert)(nil)
)
