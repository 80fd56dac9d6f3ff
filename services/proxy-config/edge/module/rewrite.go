package module

import (
	"net"
	"net/http"
	"net/http/httputil"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// stickyCookie names the instance that answered a client first.
const stickyCookie = "slipway_instance"

// via is what a gateway says of itself (RFC 9110 section 7.6.3).
const via = "1.1 slipway"

// rewrite makes the request that the app gets. Hop-by-hop headers are gone by now.
func (x *passage) rewrite(p *httputil.ProxyRequest) {
	out := p.Out
	out.URL.Scheme = "http"
	// As the client sent it: the app decides what it can read.
	out.URL.RawQuery = p.In.URL.RawQuery
	x.forwarded(p.In, out.Header)
	// The edge says "100 Continue" itself, when it begins to pass the body on.
	delete(out.Header, "Expect")
	if prior := out.Header["Via"]; len(prior) > 0 {
		out.Header["Via"] = []string{strings.Join(prior, ", ") + ", " + via}
	} else {
		out.Header["Via"] = []string{via}
	}
	if p.In.TLS != nil && !p.In.TLS.HandshakeComplete {
		// RFC 8470 section 5.1: the app decides whether it takes what may be replayed.
		out.Header["Early-Data"] = []string{"1"}
	}
	if len(p.In.Trailer) > 0 && out.Body != nil {
		// Filled when the body is read to its end, and sent after it: in chunks only.
		out.Trailer = p.In.Trailer
		out.ContentLength = -1
		delete(out.Header, "Content-Length")
	}
	if out.Header["Upgrade"] != nil {
		spellWebSocketHeaders(out.Header)
	}
}

// forwarded says who asked, for what and how. What stands there already is believed
// when a trusted proxy said it.
func (x *passage) forwarded(in *http.Request, out http.Header) {
	peer, _, err := net.SplitHostPort(in.RemoteAddr)
	if err != nil {
		peer = in.RemoteAddr
	}
	peer, _, _ = strings.Cut(peer, "%")
	proto := "http"
	if in.TLS != nil {
		proto = "https"
	}
	chain, host := peer, in.Host
	ctx := in.Context()
	if trusted, _ := caddyhttp.GetVar(ctx, caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if prior := in.Header["X-Forwarded-For"]; len(prior) > 0 {
			chain = strings.Join(prior, ", ") + ", " + peer
		}
		proto = lastOr(in.Header["X-Forwarded-Proto"], proto)
		host = lastOr(in.Header["X-Forwarded-Host"], host)
	}
	client, ok := caddyhttp.GetVar(ctx, caddyhttp.ClientIPVarKey).(string)
	if !ok || client == "" {
		client = peer
	}
	values := [4]string{chain, proto, host, client}
	out["X-Forwarded-For"] = values[0:1:1]
	out["X-Forwarded-Proto"] = values[1:2:2]
	out["X-Forwarded-Host"] = values[2:3:3]
	// Here and not before: a client could have it taken away by naming it in Connection.
	out["X-Real-Ip"] = values[3:4:4]
}

func lastOr(values []string, otherwise string) string {
	if len(values) == 0 {
		return otherwise
	}
	all := strings.Split(strings.Join(values, ","), ",")
	return strings.TrimSpace(all[len(all)-1])
}

// webSocketHeaders are spelt as RFC 6455 does, not as Go would: there are servers
// that compare them byte by byte.
var webSocketHeaders = [...]string{
	"Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Sec-WebSocket-Protocol", "Sec-WebSocket-Version",
}

func spellWebSocketHeaders(h http.Header) {
	for _, name := range webSocketHeaders {
		canonical := http.CanonicalHeaderKey(name)
		if values, ok := h[canonical]; ok {
			delete(h, canonical)
			h[name] = values
		}
	}
}

// askedFor is the instance that the client came with, or "".
func askedFor(r *http.Request) string {
	cookie, err := r.Cookie(stickyCookie)
	if err != nil {
		return ""
	}
	return cookie.Value
}

func (x *passage) cookie() *http.Cookie {
	secure := x.in.TLS != nil
	if trusted, _ := caddyhttp.GetVar(x.in.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		secure = secure || lastOr(x.in.Header["X-Forwarded-Proto"], "") == "https"
	}
	return &http.Cookie{
		Name: stickyCookie, Value: x.instance.Token, Path: "/",
		HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode,
	}
}
