package edge_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	"github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// authority is Pebble, a CA that validates as the public ones do, beside the DNS server
// that it asks, and behind a door at which its behaviour is changed and its orders are
// counted.
type authority struct {
	t         testing.TB
	directory string
	root      string // PEM file of what serves the door
	issuers   *x509.CertPool
	// httpPort and tlsPort are where it validates.
	httpPort, tlsPort string
	dns               string // where TXT and A records are set

	orders atomic.Int32
	// order replaces the answer to orders while it is set.
	order atomic.Pointer[http.HandlerFunc]
	door  *httptest.Server
}

// tools builds what go.mod names as tools, once.
var tools = sync.OnceValues(func() (map[string]string, error) {
	paths := map[string]string{}
	for _, name := range []string{"pebble", "pebble-challtestsrv"} {
		var errors bytes.Buffer
		command := exec.Command("go", "tool", "-n", name)
		command.Stderr = &errors
		out, err := command.Output()
		if err != nil {
			return nil, fmt.Errorf("go tool %s: %w: %s", name, err, errors.String())
		}
		paths[name] = strings.TrimSpace(string(out))
	}
	return paths, nil
})

// newAuthority starts a CA; environment is for Pebble.
func newAuthority(t testing.TB, environment ...string) *authority {
	t.Helper()
	return newAuthorityFor(t, 90*24*time.Hour, environment...)
}

// newAuthorityFor starts a CA whose certificates last that long.
func newAuthorityFor(t testing.TB, lasts time.Duration, environment ...string) *authority {
	t.Helper()
	paths, err := tools()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	a := &authority{t: t, httpPort: port(freeAddress(t)), tlsPort: port(freeAddress(t))}
	resolver := freeAddress(t)
	a.dns = "http://" + freeAddress(t)
	a.run(paths["pebble-challtestsrv"], nil, "-http01", "", "-https01", "", "-doh", "", "-tlsalpn01", "", "-defaultIPv6", "",
		"-dnsserver", resolver, "-management", strings.TrimPrefix(a.dns, "http://"))

	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	selfSigned(t, certificate, key)
	listen, management := freeAddress(t), freeAddress(t)
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": management, "certificate": certificate, "privateKey": key,
		"httpPort": number(t, a.httpPort), "tlsPort": number(t, a.tlsPort), "keyAlgorithm": "ecdsa", "domainBlocklist": []string{"refused.test"},
		"profiles": map[string]any{"default": map[string]any{"description": "the only one", "validityPeriod": int(lasts.Seconds())}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	a.run(paths["pebble"], append([]string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0"}, environment...), "-config", file, "-dnsserver", resolver)

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	eventually(t, "Pebble answers", func() bool {
		resp, err := client.Get("https://" + management + "/roots/0")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		a.issuers = x509.NewCertPool()
		return err == nil && a.issuers.AppendCertsFromPEM(text)
	})
	a.openDoor(listen, client.Transport)
	return a
}

// openDoor puts a proxy before Pebble.
func (a *authority) openDoor(pebble string, transport http.RoundTripper) {
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: pebble})
			// Pebble names its addresses by the host it was asked at.
			r.Out.Host = r.In.Host
		},
	}
	a.door = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/order-plz" {
			a.orders.Add(1)
			if answer := a.order.Load(); answer != nil {
				(*answer)(w, r)
				return
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	a.t.Cleanup(a.door.Close)
	a.directory = a.door.URL + "/dir"
	a.root = filepath.Join(a.t.TempDir(), "root.pem")
	writePEM(a.t, a.root, "CERTIFICATE", a.door.Certificate().Raw)
}

func (a *authority) run(program string, environment []string, args ...string) {
	a.t.Helper()
	log := &lockedBuffer{}
	command := exec.Command(program, args...)
	command.Env = environment
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if a.t.Failed() {
			a.t.Logf("%s said:\n%s", filepath.Base(program), tail(log.String(), 60))
		}
	})
}

// refuse answers orders so until accept.
func (a *authority) refuse(status int, problem, detail string, header ...string) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"type": "urn:ietf:params:acme:error:%s", "detail": %q, "status": %d}`, problem, detail, status)
	})
	a.order.Store(&answer)
}

// hang takes orders and never answers, until accept.
func (a *authority) hang() {
	answer := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		// Unread, the body hides from the server that its sender went.
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-a.t.Context().Done():
		}
	})
	a.order.Store(&answer)
}

func (a *authority) accept() { a.order.Store(nil) }

// record sets something in the DNS server.
func (a *authority) record(what string, value map[string]any) {
	a.t.Helper()
	body, err := json.Marshal(value)
	if err != nil {
		a.t.Fatal(err)
	}
	eventually(a.t, "the DNS server takes "+what, func() bool {
		resp, err := http.Post(a.dns+"/"+what, "application/json", bytes.NewReader(body))
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
}

// flags are an edge's, for this CA.
func (a *authority) flags(more ...string) []string {
	return append([]string{
		"--tls", "acme", "--acme-directory", a.directory, "--acme-ca-root", a.root, "--acme-email", "ops@example.com", "--acme-retry", "1s",
	}, more...)
}

// edge starts one that the CA validates at that loopback address.
func (c *control) acmeEdge(a *authority, ip string, flags ...string) *edgeProcess {
	c.t.Helper()
	flags = append([]string{"--certificate-key", filepath.Join(c.dir, "certificates.key")}, flags...)
	return c.edgeAt(net.JoinHostPort(ip, a.httpPort), net.JoinHostPort(ip, a.tlsPort), c.t.TempDir(), a.flags(flags...)...)
}

// trusted shakes hands as a client that trusts only the CA.
func (e *edgeProcess) trusted(a *authority, host string) (*x509.Certificate, error) {
	dialer := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: a.issuers}}
	ctx, cancel := context.WithTimeout(e.t.Context(), 15*time.Second)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", e.https)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// secures is trusted, by a client that comes again when it waited in vain: on a machine that
// is busy with other tests the CA may take longer than an edge lets a visitor wait.
func (e *edgeProcess) secures(a *authority, host string) *x509.Certificate {
	e.t.Helper()
	cert, err := e.securesInTime(a, host)
	if err != nil {
		e.t.Fatalf("%s at %s: %v", host, e.https, err)
	}
	return cert
}

func (e *edgeProcess) securesInTime(a *authority, host string) (*x509.Certificate, error) {
	deadline := time.Now().Add(patience)
	for {
		cert, err := e.trusted(a, host)
		if err == nil || time.Now().After(deadline) {
			return cert, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// reported waits for a report.
func (c *control) reported(what string, match func(*edgev1.CertificateReport) bool) *edgev1.CertificateReport {
	c.t.Helper()
	var found *edgev1.CertificateReport
	eventually(c.t, what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, r := range c.reports {
			if match(r) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// answersChallenges does what the dns service does, in the CA's DNS server.
func (c *control) answersChallenges(a *authority) (asked *atomic.Int32) {
	c.t.Helper()
	asked = &atomic.Int32{}
	sub, err := c.nc.Subscribe(subjects.DNSChallengeRequests, func(m *nats.Msg) {
		request, response := &dnsv1.ChallengeRequest{}, &dnsv1.ChallengeResponse{}
		switch err := proto.Unmarshal(m.Data, request); {
		case err != nil:
			response.Error = err.Error()
		case request.GetAction() == dnsv1.ChallengeAction_CHALLENGE_ACTION_PRESENT:
			asked.Add(1)
			a.record("set-txt", map[string]any{"host": request.GetFqdn() + ".", "value": request.GetValue()})
		case request.GetAction() == dnsv1.ChallengeAction_CHALLENGE_ACTION_CLEANUP:
			a.record("clear-txt", map[string]any{"host": request.GetFqdn() + "."})
		}
		data, err := proto.Marshal(response)
		if err == nil {
			err = m.Respond(data)
		}
		if err != nil {
			c.t.Error(err)
		}
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = sub.Unsubscribe() })
	return asked
}

func selfSigned(t testing.TB, certificate, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pebble"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, certificate, "CERTIFICATE", der)
	writePEM(t, keyFile, "PRIVATE KEY", private)
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

func number(t testing.TB, port string) int {
	t.Helper()
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
