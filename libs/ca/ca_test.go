package ca_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/libs/ca"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string) *ca.Authority {
	t.Helper()
	a, err := ca.Open(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func leaf(t *testing.T, a *ca.Authority, service string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.IdentityFile(service), a.IdentityFile(service))
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func TestAServicesCertificateNamesItAndIsShortLived(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir())
	if err := a.Issue("scheduler", 24*time.Hour, now); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(a.CertFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	verify := func(name string, at time.Time) error {
		_, err := leaf(t, a, "scheduler").Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: at})
		return err
	}
	if err := verify("scheduler", now.Add(23*time.Hour)); err != nil {
		t.Error(err)
	}
	if verify("gateway", now) == nil {
		t.Error("the scheduler's certificate is good for the gateway")
	}
	if verify("scheduler", now.Add(25*time.Hour)) == nil {
		t.Error("it is good for longer than was asked")
	}
	for _, secret := range []string{a.IdentityFile("scheduler"), filepath.Join(filepath.Dir(a.CertFile()), "ca.key")} {
		if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", secret, info, err)
		}
	}
}

func TestAnAuthorityStaysAndRenews(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, dir)
	if err := first.Issue("billing", time.Hour, now); err != nil {
		t.Fatal(err)
	}
	before := leaf(t, first, "billing")
	second := open(t, dir)
	if err := second.Issue("billing", time.Hour, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	after := leaf(t, second, "billing")
	if after.Equal(before) || after.CheckSignatureFrom(authority(t, first)) != nil {
		t.Error("the renewed certificate is the old one, or of another authority")
	}
}

func authority(t *testing.T, a *ca.Authority) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.CertFile(), filepath.Join(filepath.Dir(a.CertFile()), "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func TestWhatMakesNoCertificateIsRefusedInWords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := open(t, dir)
	for _, name := range []string{"", "../scheduler", "Scheduler", "a.b", "*", "ca"} {
		if err := a.Issue(name, time.Hour, now); err == nil || !strings.Contains(err.Error(), "no service's name") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, life := range []time.Duration{0, -time.Hour, 365 * 24 * time.Hour} {
		if err := a.Issue("billing", life, now); err == nil || !strings.Contains(err.Error(), "must be good for") {
			t.Errorf("%v: %v", life, err)
		}
	}
	if _, err := ca.Open(dir, now.AddDate(11, 0, 0)); err == nil || !strings.Contains(err.Error(), "was good until") {
		t.Errorf("an authority that has expired: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Open(dir, now); err == nil || !strings.Contains(err.Error(), "needs both") {
		t.Errorf("half of an authority: %v", err)
	}
}
