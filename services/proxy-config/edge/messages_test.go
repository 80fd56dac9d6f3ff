package edge_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// clients speak to one host over each protocol that the edge speaks.
func (e *edgeProcess) clients(host string) map[string]*http.Client {
	dial := func(protocol string) *http.Client {
		transport := &http.Transport{
			ExpectContinueTimeout: patience, DisableCompression: true, Protocols: protocols(protocol),
			DialContext:    func(context.Context, string, string) (net.Conn, error) { return net.Dial("tcp", e.http) },
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return e.dialTLSAs(host, protocol) },
		}
		e.t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport, Timeout: patience}
	}
	return map[string]*http.Client{"http://": dial("http/1.1"), "https://": dial("http/1.1"), "https://h2.": dial("h2")}
}

// base takes the mark of HTTP/2 out of a key of clients.
func base(key, host string) string { return strings.TrimSuffix(key, "h2.") + host }

func TestEveryKindOfMessagePassesAsItIs(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	const host = "kinds.test"
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/trailers":
			w.Header().Set("Trailer", "X-Sum")
			body, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %v %s", body, err, r.Trailer.Get("X-Asked"))
			w.Header().Set("X-Sum", "42")
			w.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
		case "/hints":
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			w.Header().Set("X-Final", "yes")
			_, _ = io.WriteString(w, "hinted")
		case "/head":
			w.Header().Set("Content-Length", "1234")
		case "/refuse":
			w.WriteHeader(http.StatusExpectationFailed)
		case "/nothing":
			w.WriteHeader(http.StatusNoContent)
		case "/unchanged":
			w.Header().Set("ETag", `"a"`)
			w.WriteHeader(http.StatusNotModified)
		case "/raw":
			_, _ = io.WriteString(w, r.RequestURI)
		case "/break":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "only this")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/twice":
			w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		case "/redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		default:
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
		}
	}))
	t.Cleanup(app.Close)
	c.applied(c.put(serving(host, addressOf(app))))

	for key, client := range e.clients(host) {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		do := func(method, path string, body io.Reader, change func(*http.Request)) (*http.Response, string, error) {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), method, base(key, host)+path, body)
			if err != nil {
				t.Fatal(err)
			}
			if change != nil {
				change(req)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatalf("%s%s: %v", key, path, err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			return resp, string(text), err
		}

		resp, text, err := do("POST", "/trailers", io.MultiReader(strings.NewReader("body")), func(r *http.Request) {
			r.Trailer = http.Header{"X-Asked": {"too"}}
		})
		if err != nil || text != "body <nil> too" || resp.Trailer.Get("X-Sum") != "42" || resp.Trailer.Get("X-Late") != "unannounced" {
			t.Errorf("%s trailers: %q, %v, %v", key, text, resp.Trailer, err)
		}

		var hints []string
		resp, text, err = do("GET", "/hints", nil, func(r *http.Request) {
			*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
					return nil
				},
			}))
		})
		if err != nil || text != "hinted" || len(hints) != 1 || hints[0] != "103 </style.css>; rel=preload" ||
			resp.Header.Get("X-Final") != "yes" || resp.Header.Get("Link") != "" || resp.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s interim answers: %q, %v, %v, %v", key, text, hints, resp.Header, err)
		}

		if resp, text, err = do("HEAD", "/head", nil, nil); err != nil || text != "" || resp.ContentLength != 1234 {
			t.Errorf("%s HEAD: %q, length %d, %v", key, text, resp.ContentLength, err)
		}
		if resp, _, err = do("GET", "/nothing", nil, nil); err != nil || resp.StatusCode != http.StatusNoContent {
			t.Errorf("%s 204: %v, %v", key, resp.Status, err)
		}
		if resp, _, err = do("GET", "/unchanged", nil, nil); err != nil || resp.StatusCode != http.StatusNotModified || resp.Header.Get("ETag") != `"a"` {
			t.Errorf("%s 304: %v, %v", key, resp.Status, err)
		}
		if resp, _, err = do("GET", "/redirect", nil, nil); err != nil || resp.Header.Get("Location") != "/elsewhere" {
			t.Errorf("%s redirect: %v, %v", key, resp.Header, err)
		}
		if resp, _, err = do("GET", "/twice", nil, nil); err != nil || len(resp.Header["Set-Cookie"]) != 2 {
			t.Errorf("%s two cookies: %v, %v", key, resp.Header, err)
		}
		if _, text, err = do("GET", "/raw?a=1;b=%zz&c", nil, nil); err != nil || text != "/raw?a=1;b=%zz&c" {
			t.Errorf("%s query: %q, %v", key, text, err)
		}
		if _, text, err = do("GET", "/break", nil, nil); err == nil {
			t.Errorf("%s an answer that broke off looks whole: %q", key, text)
		}
		expecting := func(r *http.Request) { r.Header.Set("Expect", "100-continue") }
		big := strings.Repeat("x", 2<<20)
		if _, text, err = do("POST", "/", strings.NewReader(big), expecting); err != nil || text != big {
			t.Errorf("%s Expect: %d bytes, %v", key, len(text), err)
		}
		if resp, _, _ = do("POST", "/refuse", strings.NewReader("small"), expecting); resp.StatusCode != http.StatusExpectationFailed {
			t.Errorf("%s Expect, refused: %v", key, resp.Status)
		}
		for _, method := range []string{"GET", "DELETE", "PATCH", "PUT"} {
			if _, text, err = do(method, "/", strings.NewReader("with a body"), nil); err != nil || text != "with a body" {
				t.Errorf("%s %s with a body: %q, %v", key, method, text, err)
			}
		}
	}
}

func TestAnAppThatSpeaksHTTPBadlyGetsNobodyElsesAnswerMixedUp(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	for what, test := range map[string]struct {
		answer string
		status int
	}{
		"more than it announced": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200},
		"no HTTP":                {"hello\r\n\r\n", 502},
		"headers without end":    {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 11<<20), 502},
		"a switch unasked":       {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", 502},
		"interim answers only":   {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 50), 502},
		"two lengths":            {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", 502},
	} {
		l, err := net.Listen("tcp", freeAddress(t))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					in := bufio.NewReader(conn)
					for {
						if _, err := http.ReadRequest(in); err != nil {
							return
						}
						_, _ = io.WriteString(conn, test.answer)
						if test.status != 200 {
							return
						}
					}
				}()
			}
		}()
		c.applied(c.put(serving("bad.test", l.Addr().String())))
		for range 3 {
			got := e.get("bad.test")
			if got.status != test.status || strings.Contains(got.body, "evil") || test.status == 200 && got.body != "ok" {
				t.Errorf("%s: %d %.40q", what, got.status, got.body)
			}
		}
		_ = l.Close()
	}
}

func TestAnAppNoticesThatItsClientLeft(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	arrived, left := make(chan struct{}, 1), make(chan struct{}, 1)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	}))
	t.Cleanup(app.Close)
	c.applied(c.put(serving("left.test", addressOf(app))))
	for key, client := range e.clients("left.test") {
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base(key, "left.test"), nil)
			if err != nil {
				return
			}
			if resp, err := client.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		}()
		<-arrived
		leave()
		<-done
		select {
		case <-left:
		case <-time.After(patience):
			t.Errorf("%s: the app goes on for nobody", key)
		}
	}
}
