package standalone_test

import (
	"strings"
	"testing"
)

func TestHowTheEdgeServesHTTPSIsCheckedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	if c, err := load(t, "tls: acme\nwildcard: true\nbase-domain: apps.example.com\nacme: {email: ops@example.com}\n", "--public-https-port", "443"); err != nil {
		t.Error(err)
	} else if c.TLS != "acme" || !c.Wildcard || c.ACME.Email != "ops@example.com" || c.PublicHTTPSPort != 443 {
		t.Errorf("%+v", c.Settings)
	}
	for flag, args := range map[string][]string{
		"--tls:":            {"--tls", "maybe"},
		"--acme-directory:": {"--tls", "acme", "--acme-directory", "http://ca.example"},
		"--wildcard:":       {"--wildcard"},
		"--acme-ca-root:":   {"--tls", "acme", "--acme-ca-root", "/nowhere"},
		"--https-redirect:": {"--https-redirect", "sometimes"},
	} {
		if _, err := load(t, "", args...); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
