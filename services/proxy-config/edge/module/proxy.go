package module

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/balance"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/origin"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

const (
	dialTimeout   = 2 * time.Second
	answerTimeout = 5 * time.Minute
	// idleTimeout of connections to apps. It is shorter than the keep-alive of the
	// usual app servers (gunicorn 2 s, Node and uvicorn 5 s), so that the edge closes
	// an idle connection before the app does: a POST never meets one just closed.
	idleTimeout = 1500 * time.Millisecond
	idlePerApp  = 256
	// probeInterval is between a connection's probes while they go unanswered: after 15 s
	// of silence nine of them, so an app that vanished without a word is noticed within
	// half a minute. Its machine answers them: an app may think for longer. TCP's user
	// timeout would do more, and cut off apps that read slowly.
	probeInterval = time.Second
	copyBuffer    = 32 << 10
)

// Proxy sends a request to an instance of its app and the answer back. It is the
// standard library's reverse proxy with a choice of instance, safe retries, and
// tunnels that end with their instance.
type Proxy struct {
	// BodyTimeout bounds the pauses of a request's body.
	BodyTimeout caddy.Duration `json:"body_timeout,omitempty"`
	// AnswerTimeout bounds the time until an app begins its answer; 5 minutes when 0.
	AnswerTimeout caddy.Duration `json:"answer_timeout,omitempty"`

	deps      Deps
	transport *origin.Transport
	buffers   *bufferPool
	log       *zap.Logger
	errorLog  *log.Logger
}

// CaddyModule implements caddy.Module.
func (h *Proxy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerProxy, New: func() caddy.Module { return &Proxy{deps: h.deps} }}
}

// Provision implements caddy.Provisioner.
func (h *Proxy) Provision(ctx caddy.Context) error {
	h.log = ctx.Logger()
	errorLog, err := zap.NewStdLogAt(h.log, zapcore.DebugLevel)
	if err != nil {
		return fmt.Errorf("making the proxy's log: %w", err)
	}
	h.errorLog = errorLog
	h.buffers = &bufferPool{sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Interval: probeInterval}}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, unreachableError{err}
		}
		return conn, nil
	}
	patience := time.Duration(h.AnswerTimeout)
	if patience <= 0 {
		patience = answerTimeout
	}
	h.transport = &origin.Transport{
		Dial: dial, AnswerTimeout: patience, IdleTimeout: idleTimeout, IdlePerHost: idlePerApp,
		Others: &http.Transport{
			DialContext: dial, ResponseHeaderTimeout: patience,
			IdleConnTimeout: idleTimeout, MaxIdleConnsPerHost: idlePerApp, DisableCompression: true,
		},
	}
	return nil
}

// Cleanup implements caddy.CleanerUpper: an upgraded connection belongs to nobody
// that would end it when the server stops.
func (h *Proxy) Cleanup() error {
	h.deps.Tunnels.EndAll()
	h.transport.CloseIdleConnections()
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if r.Method == http.MethodConnect {
		return caddyhttp.Error(http.StatusMethodNotAllowed, errors.New("the edge opens no tunnels"))
	}
	x := &passage{proxy: h, host: table.Host(r.Host), w: w, in: r}
	defer x.release()
	if r.ProtoMajor == 3 && r.ContentLength < 0 && len(r.Trailer) == 0 && mayLackBody(r.Method) {
		findBody(r)
	}
	if r.ContentLength != 0 && h.BodyTimeout > 0 {
		x.body = &watchedBody{
			ReadCloser: r.Body, client: w, control: http.NewResponseController(w), pause: time.Duration(h.BodyTimeout),
			expected: strings.EqualFold(r.Header.Get("Expect"), "100-continue") && r.ProtoAtLeast(1, 1),
		}
		r.Body = x.body
	}
	for name, values := range w.Header() {
		x.own = append(x.own, ownHeader{name, values})
	}
	x.publish()
	(&httputil.ReverseProxy{
		Rewrite: x.rewrite, Transport: x, ModifyResponse: x.answered, ErrorHandler: x.failed,
		BufferPool: h.buffers, ErrorLog: h.errorLog,
	}).ServeHTTP(w, r)
	return x.err
}

// passage is one request and what becomes of it.
type passage struct {
	proxy *Proxy
	host  string
	w     http.ResponseWriter
	in    *http.Request
	// body is the request's; nil when it has none.
	body *watchedBody
	// answer is the body of the app's answer.
	answer answerBody

	// own are the answer's headers from before: the standard proxy clears them when an
	// app sends an interim answer (1xx).
	own []ownHeader

	instance *balance.Instance
	// tried are the instances of the attempts before.
	tried []*balance.Instance
	// sticky is set when the route's clients are to stay with their instance, asked
	// is the token this one came with.
	sticky  bool
	asked   string
	drain   time.Duration
	latency time.Duration
	err     error
}

type ownHeader struct {
	name   string
	values []string
}

func (x *passage) release() {
	if x.instance != nil {
		x.instance.Done()
	}
}

// lastTried is the placeholder of the instance that was asked last, as host:port.
const lastTried = "http.reverse_proxy.upstream.hostport"

// publish gives what Caddy's own reverse proxy would to log formats: which instance
// it was, and how long it took to begin its answer.
func (x *passage) publish() {
	repl, ok := x.in.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	repl.Map(func(key string) (any, bool) {
		switch key {
		case lastTried:
			if x.instance == nil {
				return nil, false
			}
			return x.instance.Address, true
		case "http.reverse_proxy.upstream.latency":
			return x.latency, x.latency > 0
		}
		return nil, false
	})
}

// failed is told why there is no answer to pass on.
func (x *passage) failed(_ http.ResponseWriter, _ *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	var handled caddyhttp.HandlerError
	switch {
	case errors.Is(err, errTunnelled):
	case x.body != nil && x.body.stopped():
		x.err = caddyhttp.Error(http.StatusRequestTimeout, err)
	case errors.As(err, &tooLarge):
		x.err = caddyhttp.Error(http.StatusRequestEntityTooLarge, err)
	case errors.As(err, &handled):
		x.err = handled
	case errors.Is(err, context.DeadlineExceeded) || timeout(err) && !unreachable(err) || timedOut(x.in.Context()):
		x.err = caddyhttp.Error(http.StatusGatewayTimeout, err)
	case x.in.Context().Err() != nil:
		// The client left: the status is for the access log.
		x.w.WriteHeader(statusClientLeft)
	default:
		x.err = caddyhttp.Error(http.StatusBadGateway, err)
	}
}

// statusClientLeft is what logs usually call a request whose client did not wait.
const statusClientLeft = 499

// unreachableError: no connection could be made, so nothing was sent.
type unreachableError struct{ error }

func (e unreachableError) Unwrap() error { return e.error }

func unreachable(err error) bool {
	var e unreachableError
	return errors.As(err, &e)
}

// timedOut reports whether the request was ended from here, and not by its client.
func timedOut(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.Canceled)
}

func timeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// bufferPool keeps the buffers that bodies are copied with.
type bufferPool struct{ sync.Pool }

// Get implements httputil.BufferPool.
func (p *bufferPool) Get() []byte { return *p.Pool.Get().(*[]byte) }

// Put implements httputil.BufferPool.
func (p *bufferPool) Put(b []byte) { p.Pool.Put(&b) }

// errTunnelled says that the answer was a switch of protocols, and is over.
var errTunnelled = errors.New("the connection was a tunnel")

// answered looks at an answer before it is passed on.
func (x *passage) answered(res *http.Response) error {
	if x.body != nil {
		x.body.letBe()
	}
	header := x.w.Header()
	for _, own := range x.own {
		if header[own.name] == nil {
			header[own.name] = own.values
		}
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		if err := x.tunnel(res); err != nil {
			return err
		}
		return errTunnelled
	}
	// The app's own, or none.
	delete(header, "Server")
	if x.sticky && x.asked != x.instance.Token {
		http.SetCookie(x.w, x.cookie())
	}
	if isEventStream(res) {
		res.Body = x.endable(res.Body)
	}
	x.answer = answerBody{ReadCloser: res.Body, client: x.w}
	res.Body = &x.answer
	return nil
}

// answerBody has the client see what there is of an answer that breaks off, before its
// connection is broken off too.
type answerBody struct {
	io.ReadCloser
	client http.ResponseWriter
	failed error
}

func (b *answerBody) Read(p []byte) (int, error) {
	if b.failed != nil {
		// A connection that cannot be flushed is gone.
		_ = http.NewResponseController(b.client).Flush()
		return 0, b.failed
	}
	n, err := b.ReadCloser.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	b.failed = err
	return n, nil
}

var (
	_ caddy.Provisioner           = (*Proxy)(nil)
	_ caddy.CleanerUpper          = (*Proxy)(nil)
	_ caddyhttp.MiddlewareHandler = (*Proxy)(nil)
	_ http.RoundTripper           = (*passage)(nil)
	_ io.Closer                   = (*endableBody)(nil)
)
