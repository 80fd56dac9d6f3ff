package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
)

const (
	maxBody        = 16 << 10
	maxHeader      = 64 << 10
	connectTimeout = time.Second
)

// httpProber asks an instance over HTTP. It connects to the target's address and
// to nothing else: no names are looked up, no proxy is used, no redirect followed.
type httpProber struct {
	transport *http.Transport
}

func newHTTPProber() *httpProber {
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: -1}
	return &httpProber{transport: &http.Transport{
		Proxy:                  nil,
		DialContext:            dialer.DialContext,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}}
}

// probe asks once and says in words why an instance is not healthy.
func (p *httpProber) probe(ctx context.Context, target *healthv1.Target, timeout time.Duration) (ok bool, reason string) {
	request, err := probeRequest(target)
	if err != nil {
		return false, err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	response, err := p.transport.RoundTrip(request.WithContext(ctx))
	if err != nil {
		return false, inWords(err, target, timeout)
	}
	defer response.Body.Close()
	// The status is the answer; the body is only read to let the app finish writing.
	_, _ = io.CopyN(io.Discard, response.Body, maxBody)
	if response.StatusCode >= http.StatusInternalServerError {
		return false, fmt.Sprintf("GET %s answered %d", request.URL.Path, response.StatusCode)
	}
	return true, ""
}

func probeRequest(target *healthv1.Target) (*http.Request, error) {
	address, err := netip.ParseAddrPort(target.GetAddress())
	if err != nil {
		return nil, fmt.Errorf("the address %q is not an IP address and port", target.GetAddress())
	}
	path := target.GetHealthCheck().GetPath()
	if path == "" {
		path = "/"
	}
	parsed, err := url.ParseRequestURI(path)
	if err != nil || !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("the health check's path %q is not a path", path)
	}
	return &http.Request{
		Method: http.MethodGet,
		URL: &url.URL{Scheme: "http", Host: address.String(), Path: parsed.Path,
			RawPath: parsed.RawPath, RawQuery: parsed.RawQuery},
		Host:       target.GetHost(),
		Header:     http.Header{"User-Agent": {"slipway-health/1"}, "Accept": {"*/*"}},
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
	}, nil
}

func inWords(err error, target *healthv1.Target, timeout time.Duration) string {
	port := target.GetAddress()
	if address, parseErr := netip.ParseAddrPort(port); parseErr == nil {
		port = fmt.Sprint(address.Port())
	}
	var netErr net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens on port " + port
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "the instance's network does not answer"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Sprintf("no answer on port %s within %s", port, timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the connection to port " + port + " was closed without an answer"
	default:
		return "port " + port + " does not speak HTTP"
	}
}
