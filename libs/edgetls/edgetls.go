// Package edgetls is how edges serve HTTPS, as it is told to slipway-edge, and to slipwayd
// which passes it on.
package edgetls

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Where certificates come from.
const (
	// Internal is a CA of the edge's own, which nobody trusts.
	Internal = "internal"
	// ACME is a CA that speaks RFC 8555.
	ACME = "acme"
	// Off serves no HTTPS.
	Off = "off"
)

// Whether HTTP is redirected.
const (
	Auto = "auto"
	On   = "on"
	No   = "off"
)

const (
	maxHSTS   = 2 * 365 * 24 * time.Hour
	minRetry  = time.Second
	maxRetry  = time.Hour
	maxOrders = 10_000
)

// Settings are what edges are told; embed it, and its keys are the embedding struct's.
type Settings struct {
	TLS  string     `koanf:"tls" default:"internal" usage:"where apps' certificates come from: internal (a CA that nobody trusts), acme, or off for no HTTPS"`
	ACME ACMEConfig `koanf:"acme"`
	// Wildcard needs the zone of the base domain: its challenge is a DNS record.
	Wildcard bool `koanf:"wildcard" usage:"one certificate for all names under the base domain, with --tls acme; the dns service must hold its zone"`
	// CertificateKey is shared by all edges of a platform.
	CertificateKey string `koanf:"certificate-key" usage:"file with the key that edges seal their certificates with, the same on every edge, with --tls acme; certificates.key in the edge's data directory when empty, made when missing"`

	HTTPSRedirect   string        `koanf:"https-redirect" default:"auto" usage:"redirect HTTP to HTTPS: on, off, or auto for on with --tls acme"`
	PublicHTTPSPort int           `koanf:"public-https-port" usage:"port where the public reaches HTTPS, for redirects and HTTP/3; the listener's own when 0"`
	HSTS            time.Duration `koanf:"hsts" usage:"how long browsers shall use HTTPS only for an app's host (Strict-Transport-Security), e.g. 8760h; 0 says nothing"`
}

// ACMEConfig says which CA and how it is treated.
type ACMEConfig struct {
	Directory string `koanf:"directory" default:"https://acme-v02.api.letsencrypt.org/directory" usage:"URL of the CA's ACME directory; using it agrees to the CA's terms"`
	Email     string `koanf:"email" usage:"address that the CA may write to"`
	CARoot    string `koanf:"ca-root" usage:"PEM file with the certificates that the CA's own HTTPS is checked against, for a private CA"`
	// The key is in a file: a command line can be read by everybody on the machine.
	EABKeyID   string `koanf:"eab-key-id" usage:"key id of the external account, where the CA asks for one"`
	EABKeyFile string `koanf:"eab-key-file" usage:"file with the external account's key, base64url as the CA gave it"`
	// Orders are CertMagic's own limit, which is far below what CAs allow.
	Orders int           `koanf:"orders" default:"100" usage:"certificates that may be ordered within ten seconds"`
	Retry  time.Duration `koanf:"retry" default:"1m" usage:"pause after a certificate could not be had; it doubles with each failure up to six hours, and is longer where the CA says so"`
}

// Validate says everything that is wrong; baseDomain is the platform's.
func (c Settings) Validate(baseDomain string) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch c.TLS {
	case Internal, ACME, Off:
	default:
		wrong("--tls: %q is none of internal, acme, off", c.TLS)
	}
	switch c.HTTPSRedirect {
	case Auto, On, No:
	default:
		wrong("--https-redirect: %q is none of auto, on, off", c.HTTPSRedirect)
	}
	if c.TLS == Off && c.HTTPSRedirect == On {
		wrong("--https-redirect: there is no HTTPS to redirect to with --tls off")
	}
	if c.PublicHTTPSPort < 0 || c.PublicHTTPSPort > 65535 {
		wrong("--public-https-port: %d is no port; use 1 to 65535, or 0 for the listener's own", c.PublicHTTPSPort)
	}
	if c.HSTS < 0 || c.HSTS > maxHSTS || c.HSTS%time.Second != 0 {
		wrong("--hsts: %s must be whole seconds, 0 or more and at most two years (17520h)", c.HSTS)
	}
	if c.Wildcard && c.TLS != ACME {
		wrong("--wildcard: it is for --tls acme")
	}
	if c.Wildcard && baseDomain == "" {
		wrong("--wildcard: name the domain that apps live under with --base-domain")
	}
	if c.TLS == ACME {
		errs = append(errs, c.ACME.validate())
	}
	return errors.Join(errs...)
}

func (c ACMEConfig) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if u, err := url.Parse(c.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		wrong("--acme-directory: %q must be a URL that starts with https://", c.Directory)
	}
	if c.Email != "" {
		if a, err := mail.ParseAddress(c.Email); err != nil || a.Address != c.Email {
			wrong("--acme-email: %q is no address like ops@example.com", c.Email)
		}
	}
	if c.CARoot != "" {
		if text, err := os.ReadFile(c.CARoot); err != nil {
			wrong("--acme-ca-root: %w", err)
		} else if !x509.NewCertPool().AppendCertsFromPEM(text) {
			wrong("--acme-ca-root: there is no certificate in PEM in %s", c.CARoot)
		}
	}
	if (c.EABKeyID == "") != (c.EABKeyFile == "") {
		wrong("--acme-eab-key-id, --acme-eab-key-file: give both or neither")
	} else if _, err := c.EABKey(); err != nil {
		errs = append(errs, err)
	}
	if c.Orders < 1 || c.Orders > maxOrders {
		wrong("--acme-orders: %d must be 1 to %d", c.Orders, maxOrders)
	}
	if c.Retry < minRetry || c.Retry > maxRetry {
		wrong("--acme-retry: %s must be %s to %s", c.Retry, minRetry, maxRetry)
	}
	return errors.Join(errs...)
}

// EABKey is the external account's key, empty when there is none.
func (c ACMEConfig) EABKey() (string, error) {
	if c.EABKeyFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(c.EABKeyFile)
	if err != nil {
		return "", fmt.Errorf("--acme-eab-key-file: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return "", fmt.Errorf("--acme-eab-key-file: %s holds no key in base64url", c.EABKeyFile)
	}
	return key, nil
}

// Redirects reports whether HTTP is redirected to HTTPS.
func (c Settings) Redirects() bool {
	return c.HTTPSRedirect == On || c.HTTPSRedirect == Auto && c.TLS == ACME
}

// Args are the flags that say the same.
func (c Settings) Args() []string {
	args := []string{
		"--tls", c.TLS, "--https-redirect", c.HTTPSRedirect,
		"--acme-directory", c.ACME.Directory, "--acme-orders", strconv.Itoa(c.ACME.Orders), "--acme-retry", c.ACME.Retry.String(),
	}
	for _, text := range [][2]string{
		{"--acme-email", c.ACME.Email}, {"--acme-ca-root", c.ACME.CARoot}, {"--acme-eab-key-id", c.ACME.EABKeyID},
		{"--acme-eab-key-file", c.ACME.EABKeyFile}, {"--certificate-key", c.CertificateKey},
	} {
		if text[1] != "" {
			args = append(args, text[0], text[1])
		}
	}
	if c.Wildcard {
		args = append(args, "--wildcard")
	}
	if c.PublicHTTPSPort != 0 {
		args = append(args, "--public-https-port", strconv.Itoa(c.PublicHTTPSPort))
	}
	if c.HSTS != 0 {
		args = append(args, "--hsts", c.HSTS.String())
	}
	return args
}
