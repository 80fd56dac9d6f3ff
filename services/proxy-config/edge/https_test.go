package edge_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// metricsPage is what the metrics address answers.
func (e *edgeProcess) metricsPage(path string) (int, string) {
	e.t.Helper()
	resp, err := http.Get("http://" + e.metrics + path)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// overTLS asks for the host over HTTPS.
func (e *edgeProcess) overTLS(host string) (*http.Response, string) {
	e.t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{ServerName: host, InsecureSkipVerify: true}, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, "https://"+e.https+"/", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Host = host
	resp, err := transport.RoundTrip(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp, string(body)
}

// raw writes text over TCP and returns what comes until the edge closes.
func raw(t *testing.T, address, text string, limit time.Duration) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil && len(answer) == 0 {
		t.Fatalf("the edge does not answer: %v", err)
	}
	return string(answer)
}

// noRedirects is a client that shows redirects.
var noRedirects = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func (e *edgeProcess) plain(method, host, path string, header ...string) *http.Response {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), method, "http://"+e.http+path, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Host = host
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := noRedirects.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		e.t.Fatal(err)
	}
	return resp
}

func TestHTTPIsSentToHTTPSButForChallengesAndStrangers(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir(), "--https-redirect", "on", "--trusted-proxies", "127.0.0.1/32")
	behind := c.edge(t.TempDir(), "--https-redirect", "on", "--public-https-port", "443")
	c.put(serving("shop.test", addressOf(app(t, "shop"))))
	for _, one := range []*edgeProcess{e, behind} {
		eventually(t, "each edge knows the host", func() bool { return one.plain("GET", "shop.test", "/").StatusCode != 404 })
	}

	if got := e.plain("POST", "Shop.test:8000", "/a%2Fb?c=d"); got.StatusCode != 308 || got.Header.Get("Location") != "https://shop.test:"+port(e.https)+"/a%2Fb?c=d" {
		t.Errorf("%d to %s", got.StatusCode, got.Header.Get("Location"))
	}
	if got := behind.plain("GET", "shop.test", "//evil.test/"); got.StatusCode != 308 || got.Header.Get("Location") != "https://shop.test//evil.test/" {
		t.Errorf("behind NAT: %d to %s", got.StatusCode, got.Header.Get("Location"))
	}
	if got := e.plain("GET", "nobody.test", "/"); got.StatusCode != 404 {
		t.Errorf("an unknown host gets %d", got.StatusCode)
	}
	if got := e.plain("GET", "shop.test", "/.well-known/acme-challenge/token"); got.StatusCode != 200 {
		t.Errorf("an app's own challenge gets %d", got.StatusCode)
	}
	if got := e.plain("GET", "shop.test", "/", "X-Forwarded-Proto", "https"); got.StatusCode != 200 {
		t.Errorf("what a trusted proxy took over HTTPS gets %d", got.StatusCode)
	}
	if got := behind.plain("GET", "shop.test", "/", "X-Forwarded-Proto", "https"); got.StatusCode != 308 {
		t.Errorf("what a stranger says came over HTTPS gets %d", got.StatusCode)
	}
}

func TestTLSCanBeOff(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir(), "--tls", "off")
	c.applied(c.put(serving("shop.test", addressOf(app(t, "shop")))))
	if got := e.plain("GET", "shop.test", "/"); got.StatusCode != 200 {
		t.Errorf("HTTP gives %d", got.StatusCode)
	}
	if conn, err := net.Dial("tcp", e.https); err == nil {
		_ = conn.Close()
		t.Error("somebody listens for HTTPS")
	}
}

func TestBrowsersAreToldToUseHTTPSOfKnownHostsOnly(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e, silent := c.edge(t.TempDir(), "--hsts", "8760h"), c.edge(t.TempDir())
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=1")
		_, _ = io.WriteString(w, "own")
	}))
	t.Cleanup(own.Close)
	c.put(serving("own.test", addressOf(own)))
	c.applied(c.put(serving("shop.test", addressOf(app(t, "shop")))))
	for host, want := range map[string]string{"shop.test": "[max-age=31536000]", "own.test": "[max-age=1]", "nobody.test": "[]"} {
		if resp, _ := e.overTLS(host); fmt.Sprint(resp.Header["Strict-Transport-Security"]) != want {
			t.Errorf("%s: %s", host, resp.Header["Strict-Transport-Security"])
		}
	}
	if got := e.plain("GET", "shop.test", "/").Header["Strict-Transport-Security"]; got != nil {
		t.Errorf("over HTTP: %s", got)
	}
	if resp, _ := silent.overTLS("shop.test"); resp.Header["Strict-Transport-Security"] != nil {
		t.Errorf("it is said where nobody asked for it: %s", resp.Header["Strict-Transport-Security"])
	}
}

func TestHTTP2AndHTTP3AreServedAndOffered(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e, behind := c.edge(t.TempDir()), c.edge(t.TempDir(), "--public-https-port", "443")
	seen := make(chan string, 1)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- r.Header.Get("X-Forwarded-Proto") + " " + r.Host + " " + string(body)
		_, _ = io.WriteString(w, "shop")
	}))
	t.Cleanup(upstream.Close)
	c.applied(c.put(serving("shop.test", addressOf(upstream))))

	resp, body := e.overTLS("shop.test")
	if <-seen; resp.ProtoMajor != 2 || body != "shop" {
		t.Errorf("%s %d %q", resp.Proto, resp.StatusCode, body)
	}
	if got := resp.Header.Get("Alt-Svc"); !strings.Contains(got, `h3=":`+port(e.https)+`"`) {
		t.Errorf("HTTP/3 is offered as %q", got)
	}
	resp, _ = behind.overTLS("shop.test")
	if <-seen; len(resp.Header["Alt-Svc"]) != 1 || !strings.Contains(resp.Header.Get("Alt-Svc"), `h3=":443"`) {
		t.Errorf("behind NAT HTTP/3 is offered as %q", resp.Header["Alt-Svc"])
	}

	quic := &http3.Transport{TLSClientConfig: &tls.Config{ServerName: "shop.test", InsecureSkipVerify: true}}
	defer quic.Close()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+e.https+"/", strings.NewReader(strings.Repeat("x", 100)))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.test"
		resp, err := quic.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.ProtoMajor != 3 || string(body) != "shop" {
			t.Errorf("%s: %s %d %q %v", method, resp.Proto, resp.StatusCode, body, err)
		}
		if got := <-seen; !strings.HasPrefix(got, "https shop.test x") {
			t.Errorf("%s: the app sees %q", method, got)
		}
		_ = resp.Body.Close()
	}
}

func TestPlainHTTPToTheTLSPortIsToldSo(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	got := raw(t, e.https, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 10*time.Second)
	if !strings.HasPrefix(got, "HTTP/1.") || !strings.Contains(got, " 400 ") || !strings.Contains(got, "HTTPS") {
		t.Errorf("the answer is %q", got)
	}
}

func TestClientsWithoutAServerNameAreServedAsStrangers(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	c.applied(c.put(serving("shop.test", addressOf(app(t, "shop")))))
	conn, err := tls.Dial("tcp", e.https, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}) // an address is no server name
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if names := conn.ConnectionState().PeerCertificates[0].DNSNames; len(names) != 1 || names[0] != "unknown-host.invalid" {
		t.Errorf("the certificate is for %v", names)
	}
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", e.https)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != 404 {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestSlowAndOversizedHeadersAreCutOff(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	c.applied(c.put(serving("shop.test", addressOf(app(t, "shop")))))
	t.Run("oversized", func(t *testing.T) {
		t.Parallel()
		conn, err := e.dialTLSAs("shop.test", "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: shop.test\r\nX: "+strings.Repeat("x", 128<<10)+"\r\n\r\n")
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%v, %v", resp, err)
		}
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		conn, err := e.dialTLSAs("shop.test", "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: shop.test\r\n"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := conn.SetReadDeadline(began.Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, conn)
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("a client that never ends its headers is borne with for %s", took)
		}
	})
	t.Run("a handshake that never comes", func(t *testing.T) {
		t.Parallel()
		conn, err := net.Dial("tcp", e.https)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began := time.Now()
		if err := conn.SetReadDeadline(began.Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, conn)
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("a client that never shakes hands is borne with for %s", took)
		}
	})
}
