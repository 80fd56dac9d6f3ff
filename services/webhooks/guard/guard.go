// Package guard keeps requests that strangers ask for away from what only we can reach:
// it looks at the address that a connection is about to be made to, after every name has
// been resolved, so that no name, no later change of it and no redirect leads inside.
package guard

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// ErrRefused is returned for an address that is not public.
var ErrRefused = errors.New("the address is not a public one")

// notPublic are the networks of IANA's special-purpose registries (RFC 6890 and after)
// that Go's own predicates do not cover.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // shared, CGNAT (RFC 6598)
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),        // IPv4-compatible
	netip.MustParsePrefix("64:ff9b::/96"), // NAT64: leads to any IPv4 address
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), // Teredo among them
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4
	netip.MustParsePrefix("3fff::/20"),
	netip.MustParsePrefix("5f00::/16"),
	netip.MustParsePrefix("fec0::/10"),
}

// Guard says where requests may go.
type Guard struct {
	// AllowHTTP lets URLs begin with http://.
	AllowHTTP bool
	// Allow are networks that requests may go to although they are not public.
	Allow []netip.Prefix
}

// Address is nil for an address that requests may go to. Errors: ErrRefused.
func (g Guard) Address(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	for _, p := range g.Allow {
		if p.Contains(a) {
			return nil
		}
	}
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return fmt.Errorf("%w: %s", ErrRefused, a)
	}
	for _, p := range notPublic {
		if p.Contains(a) {
			return fmt.Errorf("%w: %s", ErrRefused, a)
		}
	}
	return nil
}

// maxURL bounds a URL, in bytes.
const maxURL = 2048

// URL says in words what is wrong with where somebody wants requests to go; empty for
// nothing that can be seen before its name is resolved.
func (g Guard) URL(text string) string {
	if text == "" || len(text) > maxURL {
		return fmt.Sprintf("must be a URL of 1 to %d characters", maxURL)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Hostname() == "", u.Opaque != "":
		return "is no URL; write it like https://example.com/hook"
	case u.Scheme != "https" && (u.Scheme != "http" || !g.AllowHTTP):
		return "must begin with https://"
	case u.User != nil:
		return "must hold no user and password"
	case u.Fragment != "":
		return "must have no # part"
	case strings.EqualFold(strings.TrimSuffix(u.Hostname(), "."), "localhost") && g.Address(netip.IPv6Loopback()) != nil && g.Address(netip.MustParseAddr("127.0.0.1")) != nil:
		return "must lead to a public address"
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && g.Address(a) != nil {
		return "must lead to a public address"
	}
	return ""
}

// Bounds of one request.
const (
	connectTimeout = 5 * time.Second
	maxHeader      = 16 << 10
)

// Client makes requests within the guard, each answered in at most so long, and follows
// no redirects.
func (g Guard) Client(timeout time.Duration) *http.Client {
	dialer := &net.Dialer{Timeout: connectTimeout, Control: g.control}
	return &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			// No proxy: it would resolve the name, and be the one address we see.
			Proxy: nil, DialContext: dialer.DialContext, TLSHandshakeTimeout: connectTimeout, ResponseHeaderTimeout: timeout,
			MaxResponseHeaderBytes: maxHeader, DisableKeepAlives: true, ForceAttemptHTTP2: true,
		},
	}
}

// control is called with the resolved address, before each connection is made.
func (g Guard) control(network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !strings.HasPrefix(network, "tcp") {
		return fmt.Errorf("%w: %s %s", ErrRefused, network, address)
	}
	return g.Address(to.Addr())
}
