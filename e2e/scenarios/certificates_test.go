package scenarios

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/fakes/cloudflare"
	"github.com/slipway-paas/slipway/e2e/stack"
	"github.com/slipway-paas/slipway/services/domains/dnstest"
)

// TestAppsAndDomainsAreServedWithCertificatesOfTheCA: the platform's names by the zone that
// it holds, a domain of somebody else's by what it leads to, and nobody else at all.
func TestAppsAndDomainsAreServedWithCertificatesOfTheCA(t *testing.T) {
	t.Parallel()
	const token, zone, base = "cf-token-of-the-certificates", "certificates.test", "apps.certificates.test"
	dns := dnstest.Start(t)
	api := cloudflare.New(cloudflare.Options{Token: token, Zones: []string{zone}})
	api.OnTXT(func(name string, values []string) {
		var records []string
		for _, v := range values {
			records = append(records, fmt.Sprintf("TXT %q", v))
		}
		dns.Set(t, name, records...)
	})
	provider := httptest.NewServer(api)
	t.Cleanup(provider.Close)
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t)
	s := own(t, stack.Standalone, stack.Options{BaseDomain: base, Resolver: dns.Address, Env: []string{
		"SLIPWAY_TLS=acme", "SLIPWAY_WILDCARD=true", "SLIPWAY_ACME_DIRECTORY=" + ca.directory, "SLIPWAY_ACME_CA_ROOT=" + ca.root,
		"SLIPWAY_ACME_EMAIL=ops@example.com", "SLIPWAY_ACME_RETRY=1s",
		"SLIPWAY_CLOUDFLARE_TOKEN_FILE=" + tokenFile, "SLIPWAY_CLOUDFLARE_URL=" + provider.URL + "/client/v4",
		"SLIPWAY_DNS_EDGE_ADDRESSES=127.0.0.1", "SLIPWAY_DNS_SETTLE=300ms",
	}})
	ca.open(s, dns.Address)

	// An app is there under the platform's own certificate.
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080, "tier": "btc-pro"})
	dns.Set(t, a.host, "A 127.0.0.1")
	a.secure(ca, a.host, "*."+base)
	a.redirects(a.host)
	if dns.Asked("_acme-challenge."+base) == 0 {
		t.Error("the CA did not look for the wildcard's record")
	}
	eventually(t, "the challenge's record goes", func(context.Context) (bool, string, error) {
		left := slices.DeleteFunc(api.Records(zone), func(r cloudflare.Record) bool { return r.Type != "TXT" })
		return len(left) == 0, fmt.Sprint(left), nil
	})

	// A domain is nobody's until it leads here; then it has a certificate of its own.
	custom := "www." + strings.ToLower(rand.Text()[:8]) + ".test"
	d := add(a, custom, false)
	if d["status"] != "pending" || d["ssl_active"] != false {
		t.Errorf("added as %v", d)
	}
	a.unknown(custom)
	dns.Set(t, custom, "CNAME "+dnsRecord(t, d, "CNAME")+".")
	verify := expect(t, a.c, http.StatusOK, http.MethodPost, a.domains("/"+custom+"/verify"), nil).JSON()
	if verify["success"] != true {
		t.Errorf("verify says %v", verify)
	}
	if d = a.domainIs(custom, "active", ""); d["ssl_active"] != true {
		t.Errorf("active as %v", d)
	}
	a.secure(ca, custom, custom)
	a.redirects(custom)

	// Who is nobody's is shown no certificate that a browser takes, and neither is what
	// was somebody's.
	a.unknown("nobody." + base)
	a.unknown("nobody.test")
	expect(t, a.c, http.StatusNoContent, http.MethodDelete, a.domains("/"+custom), nil)
	a.unknown(custom)
	a.secure(ca, a.host, "*."+base)
	if want := []string{"*." + base, custom}; !slices.Equal(ca.asked(), want) {
		t.Errorf("the CA was asked for %q, want %q", ca.asked(), want)
	}
	edgeKeepsOut(t, filepath.Join(s.Dir, "data", "edge"), token, "permissions violation")
	if strings.Contains(s.Tails(), token) {
		t.Error("the token is in the log")
	}
}

// overTLS asks the edge over HTTPS as a browser that trusts these, or goes on past its
// warning when there are none, and returns the certificate that it was shown.
func overTLS(ctx context.Context, s *stack.Stack, host string, trusts *x509.CertPool) (client.Answer, *x509.Certificate, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusts, InsecureSkipVerify: trusts == nil, ServerName: host}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.EdgeTLS+"/", nil)
	if err != nil {
		return client.Answer{}, nil, err
	}
	request.Host = host
	response, err := transport.RoundTrip(request)
	if err != nil {
		return client.Answer{}, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	return client.Answer{Status: response.StatusCode, Header: response.Header, Body: body}, response.TLS.PeerCertificates[0], err
}

// secure waits until a browser that trusts the CA alone sees the app at host, by the
// certificate of that name.
func (a *app) secure(ca *authority, host, name string) {
	a.t.Helper()
	eventually(a.t, host+" is served over HTTPS", func(ctx context.Context) (bool, string, error) {
		answer, shown, err := overTLS(ctx, a.s, host, ca.issuer)
		if err != nil {
			return false, err.Error(), nil
		}
		if !slices.Equal(shown.DNSNames, []string{name}) {
			return false, "", fmt.Errorf("%s is served with the certificate of %q, want that of %s", host, shown.DNSNames, name)
		}
		return answer.Status == http.StatusOK && answer.JSON()["version"] == "one", answer.String(), nil
	})
}

// unknown waits until the edge says over HTTPS, as nobody whom a browser trusts, that
// there is no such host.
func (a *app) unknown(host string) {
	a.t.Helper()
	eventually(a.t, host+" is nobody's", func(ctx context.Context) (bool, string, error) {
		answer, shown, err := overTLS(ctx, a.s, host, nil)
		if err != nil {
			return false, err.Error(), nil
		}
		said := fmt.Sprintf("%s with the certificate of %q", answer, shown.DNSNames)
		return answer.Status == http.StatusNotFound && slices.Equal(shown.DNSNames, []string{"unknown-host.invalid"}), said, nil
	})
}

// redirects checks that plain HTTP leads to the same page over HTTPS.
func (a *app) redirects(host string) {
	a.t.Helper()
	request, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, a.s.Edge+"/shelf?page=2", nil)
	if err != nil {
		a.t.Fatal(err)
	}
	request.Host = host
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		a.t.Fatalf("visit %s: %v", host, err)
	}
	defer response.Body.Close()
	want := fmt.Sprintf("https://%s:%d/shelf?page=2", host, portOf(a.t, a.s.EdgeTLS))
	if got := response.Header.Get("Location"); response.StatusCode != http.StatusPermanentRedirect || got != want {
		a.t.Errorf("%s over HTTP answers %d to %q, want 308 to %q", host, response.StatusCode, got, want)
	}
}

// edgeKeepsOut checks that nothing an edge keeps, its log with it, has one of these texts.
func edgeKeepsOut(t *testing.T, dir string, texts ...string) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		var content []byte
		if err == nil && entry.Type().IsRegular() {
			content, err = os.ReadFile(path)
		}
		// A file that is being replaced goes.
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || content == nil {
			return err
		}
		seen++
		for _, text := range texts {
			if bytes.Contains(bytes.ToLower(content), []byte(text)) {
				t.Errorf("%s has %q in it", path, text)
			}
		}
		return nil
	})
	if err != nil || seen == 0 {
		t.Errorf("read %d files of the edge's: %v", seen, err)
	}
}
