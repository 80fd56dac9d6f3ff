package scenarios

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/slipway-paas/slipway/e2e/stack"
)

// authority is Pebble, a CA that validates as the public ones do. Platforms reach it
// through a door, which is there before it and hears which names are asked for.
type authority struct {
	t       *testing.T
	program string
	door    *httptest.Server
	// directory is the URL that platforms are given, root the PEM file of who serves it.
	directory, root string
	// issuer is who signs its certificates, once it is open.
	issuer *x509.CertPool

	opened chan struct{}
	pebble string // its host:port, once it is open
	mu     sync.Mutex
	names  []string
}

// newAuthority makes the door: whoever comes waits until the CA is open.
func newAuthority(t *testing.T) *authority {
	t.Helper()
	var errors bytes.Buffer
	build := exec.CommandContext(t.Context(), "go", "tool", "-n", "pebble")
	build.Stderr = &errors
	program, err := build.Output()
	if err != nil {
		t.Fatalf("build Pebble: %v\n%s", err, &errors)
	}
	a := &authority{t: t, program: strings.TrimSpace(string(program)), opened: make(chan struct{})}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "https", Host: a.pebble})
		// Pebble names its own addresses as it was asked.
		r.Out.Host = r.In.Host
	}}
	a.door = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-a.opened:
		case <-r.Context().Done():
			return
		case <-t.Context().Done():
			return
		}
		if r.URL.Path == "/order-plz" {
			if err := a.hear(r); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	proxy.Transport = a.door.Client().Transport
	t.Cleanup(a.door.Close)
	a.directory = a.door.URL + "/dir"
	a.root = a.file("root.pem", "CERTIFICATE", a.door.Certificate().Raw)
	return a
}

// open starts the CA: it looks names up at the DNS server, and visits this platform's edge.
func (a *authority) open(s *stack.Stack, dns string) {
	a.t.Helper()
	var listen [2]string
	for i := range listen {
		var err error
		if listen[i], err = s.FreeAddress(); err != nil {
			a.t.Fatal(err)
		}
	}
	key, err := x509.MarshalPKCS8PrivateKey(a.door.TLS.Certificates[0].PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen[0], "managementListenAddress": listen[1],
		"certificate": a.root, "privateKey": a.file("key.pem", "PRIVATE KEY", key),
		"httpPort": portOf(a.t, s.Edge), "tlsPort": portOf(a.t, s.EdgeTLS), "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": map[string]any{"description": "the only one", "validityPeriod": 90 * 24 * 3600}},
	}})
	if err != nil {
		a.t.Fatal(err)
	}
	path := filepath.Join(a.t.TempDir(), "pebble.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		a.t.Fatal(err)
	}
	var log bytes.Buffer
	pebble := exec.Command(a.program, "-config", path, "-dnsserver", dns)
	pebble.Env = []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0"}
	pebble.Stdout, pebble.Stderr = &log, &log
	if err := pebble.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		_ = pebble.Process.Kill()
		_ = pebble.Wait() // it was killed
		if a.t.Failed() {
			a.t.Logf("Pebble said:\n%s", log.Bytes()[max(0, log.Len()-8000):])
		}
	})
	eventually(a.t, "Pebble answers", func(ctx context.Context) (bool, string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+listen[1]+"/roots/0", nil)
		if err != nil {
			return false, "", err
		}
		response, err := a.door.Client().Do(request)
		if err != nil {
			return false, err.Error(), nil
		}
		defer response.Body.Close()
		text, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
		a.issuer = x509.NewCertPool()
		return err == nil && a.issuer.AppendCertsFromPEM(text), string(text), nil
	})
	a.pebble = listen[0]
	close(a.opened)
}

// hear notes which names an order is for.
func (a *authority) hear(r *http.Request) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	// RFC 8555, 6.2 and 7.4.
	var signed struct{ Payload string }
	if err := json.Unmarshal(body, &signed); err != nil {
		return fmt.Errorf("an order that is not signed: %w", err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	if err != nil {
		return fmt.Errorf("the order's payload: %w", err)
	}
	var order struct{ Identifiers []struct{ Value string } }
	if err := json.Unmarshal(payload, &order); err != nil {
		return fmt.Errorf("the order's payload: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range order.Identifiers {
		a.names = append(a.names, id.Value)
	}
	return nil
}

// asked are the names that certificates were asked for, each once.
func (a *authority) asked() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	names := slices.Clone(a.names)
	slices.Sort(names)
	return slices.Compact(names)
}

func (a *authority) file(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.t.TempDir(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

func portOf(t *testing.T, base string) int {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatalf("the port of %s: %v", base, err)
	}
	return port
}
