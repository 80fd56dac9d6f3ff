package module

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/balance"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

const (
	// maxRetries and retryFor bound how often, and how late, a request is sent again.
	maxRetries = 5
	retryFor   = 3 * time.Second
	retryPause = 10 * time.Millisecond
)

var errNoInstance = errors.New("the route has no instance")

// RoundTrip implements http.RoundTripper: it sends the request to an instance that
// the table holds at this very attempt, and to another one when that is safe.
func (x *passage) RoundTrip(req *http.Request) (*http.Response, error) {
	var body *replayable
	if req.Body != nil {
		body = &replayable{ReadCloser: req.Body}
		req.Body = body
	}
	began := time.Now()
	for attempt := 0; ; attempt++ {
		route, err := x.take()
		if err != nil {
			return nil, err
		}
		req.URL.Host = x.instance.Address
		sent := time.Now()
		res, err := x.proxy.transport.RoundTrip(req)
		if err == nil {
			x.latency = time.Since(sent)
			x.proxy.deps.Pool.Found(x.instance, route, outcomeOf(res))
			return res, nil
		}
		switch {
		case timedOut(req.Context()):
			x.proxy.deps.Pool.Found(x.instance, route, balance.TimedOut)
		case req.Context().Err() == nil && (body == nil || !body.failed.Load()):
			x.proxy.deps.Pool.Found(x.instance, route, failureOf(err))
		}
		if attempt == maxRetries || time.Since(began) > retryFor || !mayRepeat(req, body, err) || !pause(req.Context(), retryPause) {
			return nil, err
		}
		// The attempt before may still hold its request.
		req = req.Clone(req.Context())
	}
}

// take gives back the instance of the attempt before and chooses the next one.
func (x *passage) take() (*routingv1.Route, error) {
	route, known := x.proxy.deps.Table.Lookup(x.host)
	if x.instance != nil {
		x.instance.Done()
		x.tried = append(x.tried, x.instance)
		x.instance = nil
	}
	if known && table.Serves(route) {
		policy := route.GetPolicy()
		x.drain = policy.GetDrain().AsDuration()
		if x.sticky = policy.GetSticky(); x.sticky {
			x.asked = askedFor(x.in)
		}
		x.instance = x.proxy.deps.Pool.Take(route, x.tried, x.asked)
	}
	if x.instance == nil {
		return nil, caddyhttp.Error(http.StatusServiceUnavailable, errNoInstance)
	}
	return route, nil
}

// mayRepeat reports whether the request can be sent again without doing twice what
// it asks for: nothing of it was sent, or it asks for nothing to be done and has no body.
func mayRepeat(req *http.Request, body *replayable, err error) bool {
	if req.Context().Err() != nil || body != nil && body.read.Load() {
		return false
	}
	if unreachable(err) {
		return true
	}
	if timeout(err) {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return body == nil
	default:
		return false
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func outcomeOf(res *http.Response) balance.Outcome {
	if res.StatusCode >= http.StatusInternalServerError {
		return balance.ServerError
	}
	return balance.Answered
}

func failureOf(err error) balance.Outcome {
	switch {
	case unreachable(err):
		return balance.Unreachable
	case timeout(err):
		return balance.TimedOut
	default:
		return balance.BrokenOff
	}
}

// replayable is a request's body as long as nobody has read from it: a transport
// closes it when it finds no connection. Whoever made it closes it in the end.
type replayable struct {
	io.ReadCloser
	read atomic.Bool
	// failed: what went wrong is the client's, or a limit's.
	failed atomic.Bool
}

func (b *replayable) Read(p []byte) (int, error) {
	b.read.Store(true)
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.failed.Store(true)
	}
	return n, err
}

func (b *replayable) Close() error { return nil }
