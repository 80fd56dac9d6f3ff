package edgetls_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/libs/config"
	"github.com/slipway-paas/slipway/libs/edgetls"
)

type settings struct {
	edgetls.Settings
}

func TestWhatIsPassedOnIsReadAsItWas(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "eab")
	if err := os.WriteFile(key, []byte("bWFj_-\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var defaults settings
	if err := config.Load("x", nil, nil, &defaults); err != nil {
		t.Fatal(err)
	}
	full := defaults
	full.TLS, full.Wildcard, full.HTTPSRedirect, full.PublicHTTPSPort, full.HSTS = edgetls.ACME, true, edgetls.On, 443, time.Hour
	full.CertificateKey = "/etc/slipway/certificates.key"
	full.ACME.Email, full.ACME.EABKeyID, full.ACME.EABKeyFile, full.ACME.Orders = "ops@example.com", "kid-1", key, 7
	for _, want := range []settings{defaults, full} {
		if err := want.Validate("example.com"); err != nil {
			t.Fatal(err)
		}
		var got settings
		if err := config.Load("x", want.Args(), nil, &got); err != nil || got != want {
			t.Errorf("got %+v, want %+v, %v", got, want, err)
		}
	}
	if got, err := full.ACME.EABKey(); err != nil || got != "bWFj_-" {
		t.Errorf("the key is %q, %v", got, err)
	}
}

func TestWrongSettingsAreRefusedWithAllReasons(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := edgetls.Settings{
		TLS: edgetls.ACME, Wildcard: true, HTTPSRedirect: "maybe", PublicHTTPSPort: 70000, HSTS: -time.Second,
		ACME: edgetls.ACMEConfig{Directory: "http://ca", Email: "me", CARoot: empty, EABKeyID: "x", EABKeyFile: empty, Orders: 0, Retry: time.Millisecond},
	}.Validate("")
	if err == nil {
		t.Fatal("accepted")
	}
	for _, flag := range []string{
		"--https-redirect:", "--public-https-port:", "--hsts:", "--wildcard:", "--acme-directory:", "--acme-email:", "--acme-ca-root:",
		"--acme-eab-key-file:", "--acme-orders:", "--acme-retry:",
	} {
		if !strings.Contains(err.Error(), flag) {
			t.Errorf("nothing is said of %s in: %v", flag, err)
		}
	}
	for _, wrong := range []edgetls.Settings{
		{TLS: "yes", HTTPSRedirect: edgetls.Auto},
		{TLS: edgetls.Off, HTTPSRedirect: edgetls.On},
		{TLS: edgetls.Internal, HTTPSRedirect: edgetls.Auto, Wildcard: true},
	} {
		if wrong.Validate("example.com") == nil {
			t.Errorf("%+v is accepted", wrong)
		}
	}
}
