// Package ca is a small certificate authority for the services of one platform: it
// signs short-lived certificates by which they prove to each other who they are. The
// name in a certificate is the service's, like "scheduler", not a machine's.
package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// Names of the files in the directory of an authority.
const (
	certFile = "ca.crt"
	keyFile  = "ca.key"
)

const (
	ownLife = 10 * 365 * 24 * time.Hour
	// MinLife and MaxLife bound how long a service's certificate is good.
	MinLife = time.Minute
	MaxLife = 90 * 24 * time.Hour
	// slow is how far a service's clock may be behind.
	slow = 5 * time.Minute
)

var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// Authority signs. Whoever has the file ca.key of its directory can be any service:
// no service needs it.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Open reads the authority in dir, ca.crt and ca.key, making it when neither is there.
// It fails when one of them is missing or has expired.
func Open(dir string, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of certificates: %w", err)
	}
	a := &Authority{dir: dir}
	certPEM, certErr := os.ReadFile(a.CertFile())
	keyPEM, keyErr := os.ReadFile(a.keyFile())
	switch {
	case errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist):
		return a, a.make(now)
	case certErr != nil || keyErr != nil:
		return nil, fmt.Errorf("the authority needs both %s and %s: %w", a.CertFile(), a.keyFile(), errors.Join(certErr, keyErr))
	}
	if err := a.parse(certPEM, keyPEM); err != nil {
		return nil, err
	}
	if now.After(a.cert.NotAfter) {
		return nil, fmt.Errorf("%s was good until %s: take another directory, and give every service its certificate anew",
			a.CertFile(), a.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return a, nil
}

// CertFile is what every service must trust.
func (a *Authority) CertFile() string { return filepath.Join(a.dir, certFile) }

func (a *Authority) keyFile() string { return filepath.Join(a.dir, keyFile) }

// IdentityFile is where Issue puts that service's certificate and key.
func (a *Authority) IdentityFile(service string) string {
	return filepath.Join(a.dir, service+".pem")
}

func (a *Authority) parse(certPEM, keyPEM []byte) error {
	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return fmt.Errorf("%s and %s must be PEM", a.CertFile(), a.keyFile())
	}
	var err error
	if a.cert, err = x509.ParseCertificate(certBlock.Bytes); err != nil {
		return fmt.Errorf("%s: %w", a.CertFile(), err)
	}
	if a.key, err = x509.ParseECPrivateKey(keyBlock.Bytes); err != nil {
		return fmt.Errorf("%s: %w", a.keyFile(), err)
	}
	if !a.key.PublicKey.Equal(a.cert.PublicKey) {
		return fmt.Errorf("%s is not the key of %s", a.keyFile(), a.CertFile())
	}
	return nil
}

func (a *Authority) make(now time.Time) error {
	template, err := newCertificate("Slipway services", now, ownLife)
	if err != nil {
		return err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return fmt.Errorf("make the authority: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("make the authority: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("make the authority: %w", err)
	}
	keyPEM, err := encodeKey(a.key)
	if err != nil {
		return err
	}
	// The key first: a certificate alone would be taken for half of an authority.
	if err := write(a.keyFile(), keyPEM, 0o600); err != nil {
		return err
	}
	return write(a.CertFile(), encodeCert(der), 0o644)
}

// Issue gives the service a new key and a certificate that is good for life from now,
// both in its IdentityFile, which is replaced as a whole.
func (a *Authority) Issue(service string, life time.Duration, now time.Time) error {
	switch {
	case !validName.MatchString(service) || service == "ca":
		return fmt.Errorf("%q is no service's name: use lowercase letters, digits and hyphens", service)
	case life < MinLife || life > MaxLife:
		return fmt.Errorf("a certificate for %v: it must be good for %v to %v", life, MinLife, MaxLife)
	}
	template, err := newCertificate(service, now, life)
	if err != nil {
		return err
	}
	template.DNSNames = []string{service}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of %s: %w", service, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign the certificate of %s: %w", service, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	return write(a.IdentityFile(service), append(encodeCert(der), keyPEM...), 0o600)
}

func newCertificate(name string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-slow), NotAfter: now.Add(life),
	}, nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// write replaces the file so that readers see the old content or the new.
func write(path string, content []byte, mode fs.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(file.Name())
	_, err = file.Write(content)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
