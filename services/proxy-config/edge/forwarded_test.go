package edge_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// mirror is an app that keeps the headers of the last request.
func mirror(t *testing.T) (address string, seen <-chan http.Header) {
	t.Helper()
	headers := make(chan http.Header, 1)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			w.Header().Set("X-Upgrade", "arrived")
		}
		headers <- r.Header.Clone()
	}))
	t.Cleanup(app.Close)
	return addressOf(app), headers
}

func TestAppsBelieveNothingThatAClientSaysOfItself(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	address, seen := mirror(t)
	c.applied(c.put(serving("who.test", address)))

	for what, said := range map[string][]string{
		"plainly": {
			"Forwarded", "for=6.6.6.6;proto=https", "X-Real-IP", "6.6.6.6",
			"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "other.test",
		},
		"as headers of this hop only": {"Connection", "X-Real-Ip, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host", "X-Real-Ip", "6.6.6.6"},
	} {
		e.get("who.test", said...)
		got := <-seen
		for name, want := range map[string]string{
			"Forwarded": "", "X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "who.test",
		} {
			if got := strings.Join(got[name], ", "); got != want {
				t.Errorf("%s: %s arrives as %q, want %q", what, name, got, want)
			}
		}
	}
}

func TestAProxyThatIsTrustedSaysWhoAsked(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir(), "--trusted-proxies", "127.0.0.0/8,10.0.0.0/8")
	address, seen := mirror(t)
	c.applied(c.put(serving("who.test", address)))

	e.get("who.test", "X-Forwarded-For", "6.6.6.6, 7.7.7.7, 10.1.1.1", "X-Forwarded-Proto", "https", "X-Real-Ip", "6.6.6.6", "Forwarded", "for=6.6.6.6")
	got := <-seen
	for name, want := range map[string]string{
		"X-Forwarded-For": "6.6.6.6, 7.7.7.7, 10.1.1.1, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Real-Ip": "7.7.7.7", "Forwarded": "",
	} {
		if got := strings.Join(got[name], ", "); got != want {
			t.Errorf("%s arrives as %q, want %q", name, got, want)
		}
	}
}

func TestNobodySwitchesAnAppToHTTP2BehindTheEdge(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	address, seen := mirror(t)
	c.applied(c.put(serving("who.test", address)))

	for _, upgrade := range []string{"h2c", "H2C", "websocket, h2c", "HTTP/2.0"} {
		got := e.get("who.test", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", upgrade, "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
		h := <-seen
		if got.status != 200 || h.Get("Upgrade") != "" || h.Get("Connection") != "" || h.Get("Http2-Settings") != "" {
			t.Errorf("%s: %d, and the app sees %v", upgrade, got.status, h)
		}
	}
	e.get("who.test", "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
	if h := <-seen; h.Get("Http2-Settings") != "" {
		t.Errorf("the app sees HTTP2-Settings: %v", h)
	}
}

func TestAnUnknownHostIsToldSoOverHTTPSToo(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	c.applied(c.put(serving("safe.test", addressOf(app(t, "safe")))))

	for _, host := range []string{"nobody.test", "somebody.test", ""} {
		conn, err := e.dialTLS(host)
		if err != nil {
			t.Fatalf("%q: %v", host, err)
		}
		defer conn.Close()
		// Its own name only, whatever was asked for: it deceives nobody.
		if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname("unknown-host.invalid"); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
	conn, err := e.dialTLSAs("nobody.test", "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://nobody.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNotFound {
		t.Errorf("got %s, want 404", answer.Status)
	}
}

func TestAppsAreToldThatARequestCameOverHTTPS(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	address, seen := mirror(t)
	c.applied(c.put(serving("safe.test", address)))
	for _, protocol := range []string{"http/1.1", "h2"} {
		client := &http.Client{Transport: &http.Transport{
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return e.dialTLSAs("safe.test", protocol) },
			Protocols:      protocols(protocol),
		}}
		resp, err := client.Get("https://safe.test/")
		if err != nil {
			t.Fatalf("%s: %v", protocol, err)
		}
		_ = resp.Body.Close()
		client.CloseIdleConnections()
		if got := (<-seen).Get("X-Forwarded-Proto"); got != "https" {
			t.Errorf("over %s, X-Forwarded-Proto is %q", protocol, got)
		}
	}
}

func protocols(name string) *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(name == "http/1.1")
	p.SetHTTP2(name == "h2")
	return p
}
