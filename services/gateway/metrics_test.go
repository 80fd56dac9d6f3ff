package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/services/gateway"
)

func TestFiguresAreForCallersOnThisMachineAlone(t *testing.T) {
	t.Parallel()
	s := begin(t, func(_ *gateway.Config, d *gateway.Deps) {
		d.Exposition = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "slipway_up 1\n") })
	})
	for name, c := range map[string]struct {
		from, host, header string
		want               int
	}{
		"this machine":                         {"127.0.0.1:40000", "127.0.0.1:8080", "", 200},
		"this machine, IPv6":                   {"[::1]:40000", "[::1]:8080", "", 200},
		"this machine, IPv4 in IPv6":           {"[::ffff:127.0.0.1]:40000", "localhost:8080", "", 200},
		"a neighbour":                          {"10.0.0.7:40000", "127.0.0.1:8080", "", 404},
		"anybody":                              {"203.0.113.9:40000", "api.example.com", "", 404},
		"who says to be this machine":          {"203.0.113.9:40000", "127.0.0.1:8080", "X-Forwarded-For: 127.0.0.1", 404},
		"anybody through a proxy here":         {"127.0.0.1:40000", "127.0.0.1:8080", "X-Forwarded-For: 203.0.113.9", 404},
		"anybody through a proxy of RFC 7239":  {"127.0.0.1:40000", "127.0.0.1:8080", "Forwarded: for=203.0.113.9", 404},
		"through a proxy that keeps the host":  {"127.0.0.1:40000", "api.example.com", "", 404},
		"a page whose name leads to this host": {"127.0.0.1:40000", "rebound.example:8080", "", 404},
		"no address":                           {"", "127.0.0.1:8080", "", 404},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
		r.RemoteAddr, r.Host = c.from, c.host
		if header, value, ok := strings.Cut(c.header, ": "); ok {
			r.Header.Set(header, value)
		}
		w := httptest.NewRecorder()
		s.service.Handler().ServeHTTP(w, r)
		if told := strings.Contains(w.Body.String(), "slipway_up"); w.Code != c.want || told != (c.want == 200) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}
