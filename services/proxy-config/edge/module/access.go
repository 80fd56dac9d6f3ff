package module

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/access"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// exchangeVar is where a request's exchange is kept, for the handlers of errors too.
const exchangeVar = "slipway.exchange"

// answerBegan is set by the proxy to how long after it was asked an instance began its
// answer.
const answerBegan = "http.reverse_proxy.upstream.latency"

// Bounds of what a client may put into a log, in bytes.
const (
	maxLoggedPath  = 1024
	maxLoggedAgent = 256
	maxLoggedHost  = 253
)

// Access takes note of every request for an app: for its log and for its figures.
type Access struct {
	deps Deps
	// Errors is for the routes that answer errors: it goes on with what the failed
	// routes began.
	Errors bool `json:"errors,omitempty"`
}

// CaddyModule implements caddy.Module.
func (h *Access) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerAccess, New: func() caddy.Module { return &Access{deps: h.deps} }}
}

// Provision implements caddy.Provisioner.
func (h *Access) Provision(ctx caddy.Context) error {
	_, err := registerOnce(ctx.GetMetricsRegistry(), h.deps.Access)
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Access) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.Errors {
		x := exchangeOf(r)
		if x == nil {
			return next.ServeHTTP(w, r)
		}
		x.ResponseWriterWrapper.ResponseWriter = w
		defer h.end(x, r)
		return next.ServeHTTP(x, r)
	}
	route, ok := h.deps.Table.Lookup(table.Host(r.Host))
	if !ok {
		return next.ServeHTTP(w, r)
	}
	app := h.deps.Access.App(route.GetOrgId(), route.GetDeploymentId())
	if app == nil {
		return next.ServeHTTP(w, r)
	}
	x := &exchange{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, app: app, route: route, begun: time.Now()}
	x.trace = httptrace.ClientTrace{GetConn: x.getConn, GotConn: x.gotConn, GotFirstResponseByte: x.firstByte}
	caddyhttp.SetVar(r.Context(), exchangeVar, x)
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &x.trace))
	if r.Body != nil && r.Body != http.NoBody {
		x.body.ReadCloser = r.Body
		r.Body = &x.body
	}
	failed := false
	// Deferred, because a proxy that breaks off an answer panics.
	defer func() {
		if !failed {
			h.end(x, r)
		}
	}()
	err := next.ServeHTTP(x, r)
	// The routes for errors come next.
	failed = err != nil
	return err
}

// routeOf is the route that the request was taken note of with, or else the table's own: of
// many routes each look-up goes through memory that no cache holds. Which instance a
// request goes to is for the table alone, at each attempt.
func routeOf(r *http.Request, t *table.Table) (*routingv1.Route, bool) {
	if x := exchangeOf(r); x != nil {
		return x.route, true
	}
	return t.Lookup(table.Host(r.Host))
}

func (h *Access) end(x *exchange, r *http.Request) {
	now := time.Now()
	status := x.status
	if status == 0 {
		status = http.StatusOK
	}
	upgraded := status == http.StatusSwitchingProtocols
	x.app.Served(access.Served{
		Status: status, Duration: now.Sub(x.begun), BytesIn: x.body.read.Load(), BytesOut: x.written, Upgraded: upgraded,
	})
	h.deps.Access.Log(x.app, func() *edgev1.AccessLogEntry { return x.entry(r, status, now) })
}

func exchangeOf(r *http.Request) *exchange {
	x, _ := caddyhttp.GetVar(r.Context(), exchangeVar).(*exchange)
	return x
}

// answeredBy notes that the edge answered itself, with that page.
func answeredBy(r *http.Request, page string) {
	if x := exchangeOf(r); x != nil {
		x.page = page
	}
}

// exchange is one request on its way and its answer, counted.
type exchange struct {
	caddyhttp.ResponseWriterWrapper
	app   *access.App
	route *routingv1.Route
	trace httptrace.ClientTrace
	body  countedBody
	page  string

	begun   time.Time
	status  int
	written uint64
	// asked and connected are when the edge asked for a connection to the last instance
	// and had it; zero when that was not.
	asked, connected time.Time
	// answered is how long after connected its answer began, 0 when it did not. What
	// reads the connection writes it.
	answered atomic.Int64
}

func (x *exchange) getConn(string) {
	x.asked, x.connected = time.Now(), time.Time{}
	x.answered.Store(0)
}

func (x *exchange) gotConn(httptrace.GotConnInfo) { x.connected = time.Now() }

func (x *exchange) firstByte() { x.answered.Store(int64(time.Since(x.connected))) }

// WriteHeader implements http.ResponseWriter.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		x.status = status
	}
	x.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriterWrapper.Write(b)
	x.written += uint64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (x *exchange) ReadFrom(from io.Reader) (int64, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriterWrapper.ReadFrom(from)
	x.written += uint64(n)
	return n, err
}

func (x *exchange) entry(r *http.Request, status int, now time.Time) *edgev1.AccessLogEntry {
	e := &edgev1.AccessLogEntry{
		Time: timestamppb.New(x.begun), Host: logged(table.Host(r.Host), maxLoggedHost), Method: r.Method, Path: logged(r.URL.EscapedPath(), maxLoggedPath),
		Protocol: r.Proto, Status: uint32(status), BytesIn: x.body.read.Load(), BytesOut: x.written, Duration: durationpb.New(now.Sub(x.begun)),
		UserAgent: logged(r.UserAgent(), maxLoggedAgent), RefererHost: refererHost(r.Header.Get("Referer")),
		RequestId: logged(r.Header.Get(headerRequestID), maxRequestID), TraceId: traceID(r.Header.Get(headerTraceParent)), Page: x.page,
	}
	e.Client, _ = caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if r.TLS != nil {
		e.Tls = strings.TrimPrefix(tls.VersionName(r.TLS.Version), "TLS ")
	}
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return e
	}
	if e.Upstream, _ = repl.GetString(lastTried); e.Upstream == "" {
		return e
	}
	for _, u := range x.route.GetUpstreams() {
		if u.GetAddress() == e.Upstream {
			e.InstanceId = u.GetInstanceId()
		}
	}
	if !x.connected.IsZero() {
		e.Connect = durationpb.New(x.connected.Sub(x.asked))
	}
	if service := time.Duration(x.answered.Load()); service > 0 {
		e.Service = durationpb.New(service)
	} else if began, ok := repl.Get(answerBegan); ok {
		// A transport that tells no trace of its connections tells this much.
		if latency, ok := began.(time.Duration); ok && latency > 0 {
			e.Service = durationpb.New(latency - e.GetConnect().AsDuration())
		}
	}
	return e
}

// logged is as much of a client's text as may be logged: a message takes no text that
// is not UTF-8.
func logged(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return s
}

// refererHost is the host of a Referer, without the rest: paths and queries may hold
// what is nobody else's business.
func refererHost(referer string) string {
	_, rest, ok := strings.Cut(referer, "://")
	if !ok {
		return ""
	}
	if end := strings.IndexAny(rest, "/?#\\"); end >= 0 {
		rest = rest[:end]
	}
	return logged(rest[strings.LastIndexByte(rest, '@')+1:], maxLoggedHost)
}

// traceID takes it out of a traceparent (W3C Trace Context, section 3.2).
func traceID(parent string) string {
	if len(parent) < 55 || parent[2] != '-' || parent[35] != '-' {
		return ""
	}
	id := parent[3:35]
	for i := range len(id) {
		if (id[i] < '0' || id[i] > '9') && (id[i] < 'a' || id[i] > 'f') {
			return ""
		}
	}
	return id
}

// countedBody counts what was read of a request's body.
type countedBody struct {
	io.ReadCloser
	// read is written by the connection to the app, which may go on for longer.
	read atomic.Uint64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(uint64(n))
	return n, err
}

var (
	_ caddy.Provisioner           = (*Access)(nil)
	_ caddyhttp.MiddlewareHandler = (*Access)(nil)
)
