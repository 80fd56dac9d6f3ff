package subjects_test

import (
	"errors"
	"regexp"
	"testing"

	"github.com/slipway-paas/slipway/libs/subjects"
)

func TestAPathOfTheStorageIsReadBack(t *testing.T) {
	t.Parallel()
	for path, key := range map[string]string{
		"certificates/ca.example-dir/shop.example/shop.example.crt": "certificates.ca=2Eexample-dir.shop=2Eexample.shop=2Eexample=2Ecrt",
		"issue_cert_*.a.b": "issue_cert_=2A=2Ea=2Eb",
		"a//b":             "a.=.b",
		"":                 "=",
	} {
		if got := subjects.CertificateKey(path); got != key {
			t.Errorf("%q became %s, want %s", path, got, key)
		}
		if got, err := subjects.ParseCertificateKey(key); err != nil || got != path {
			t.Errorf("%s was read as %q, %v", key, got, err)
		}
	}
}

func TestWhatIsNoCertificatesKeyIsRefused(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "a.", "a=2", "a=zz", "a=61", "a b", "a.*", "=2e"} {
		if path, err := subjects.ParseCertificateKey(key); !errors.Is(err, subjects.ErrInvalid) {
			t.Errorf("%q was read as %q, %v", key, path, err)
		}
	}
}

// FuzzEveryPathHasAKeyOfItsOwn: whatever a host is called, its certificate is kept where
// it is found again, and nobody else's is.
func FuzzEveryPathHasAKeyOfItsOwn(f *testing.F) {
	for _, s := range []string{"a/b.crt", "/", "=", "*.>", "ä", "a\x00b"} {
		f.Add(s)
	}
	valid := regexp.MustCompile(`^[-_=a-zA-Z0-9]+(\.[-_=a-zA-Z0-9]+)*$`)
	f.Fuzz(func(t *testing.T, path string) {
		key := subjects.CertificateKey(path)
		if !valid.MatchString(key) {
			t.Fatalf("%q became %q, which no bucket takes", path, key)
		}
		if back, err := subjects.ParseCertificateKey(key); err != nil || back != path {
			t.Fatalf("%q became %q and was read as %q, %v", path, key, back, err)
		}
	})
}
