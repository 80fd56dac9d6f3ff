package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric/noop"

	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/idempotency"
	"github.com/slipway-paas/slipway/services/gateway/oauth"
)

// door is the one handler of the public listener.
type door struct {
	log     *slog.Logger
	guard   *authn.Guard
	limits  *limits
	answers *idempotency.Keeper
	deploy  *deployServer
	ingress *ingressServer
	rpc     http.Handler
	rest    http.Handler
	mux     *http.ServeMux
	figures *figures
	tracing bool
	now     func() time.Time
}

func newDoor(deploy *deployServer, ingress *ingressServer, register registrar, guard *authn.Guard, limits *limits, grpc *rpc.Server, health *healthReport, pages *oauth.Handler, document []byte, deps Deps) (*door, error) {
	d := &door{
		log: deps.Log, guard: guard, limits: limits, answers: deps.Answers, deploy: deploy, ingress: ingress, rpc: grpc, mux: http.NewServeMux(),
		tracing: deps.Tracing, now: deps.Now,
	}
	all, err := routes(dialects()...)
	if err != nil {
		return nil, err
	}
	translator, err := d.translator(register)
	if err != nil {
		return nil, err
	}
	for _, rt := range all {
		d.mux.Handle(rt.pattern(), d.translated(rt, translator))
	}
	d.mux.HandleFunc(eventsPattern, d.events)
	d.mux.HandleFunc(orgEventsPattern, d.orgEvents)
	d.mux.HandleFunc(accessLogPattern, d.accessLog)
	d.mux.Handle("GET /api/v1/health", health)
	pages.Register(func(pattern string, h http.Handler) { d.mux.Handle(pattern, d.repeatable(h)) })
	d.mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// A failed write means that the client is gone.
		_, _ = w.Write(document)
	})
	if deps.Exposition != nil {
		d.mux.Handle("GET /metrics", d.onlyLocal(deps.Exposition))
	}
	// Its figures would have a series for each Host header that a client makes up; ours
	// are by route.
	d.rest = otelhttp.NewHandler(http.HandlerFunc(d.route), "http", otelhttp.WithMeterProvider(noop.NewMeterProvider()), otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
		if _, pattern := d.mux.Handler(r); pattern != "" {
			return pattern
		}
		return r.Method
	}))
	if d.figures, err = newFigures(deps.Metrics); err != nil {
		return nil, err
	}
	return d, nil
}

// forwarding are the headers that proxies add, each by itself.
var forwarding = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"}

// onlyLocal answers callers on this machine; to others there is nothing here. What came
// through a proxy came from elsewhere, although the proxy may be on this machine, and
// what names another host was made to by a page in a browser (DNS rebinding).
func (d *door) onlyLocal(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		proxied := slices.ContainsFunc(forwarding, func(name string) bool { return len(r.Header[name]) > 0 })
		if err != nil || !from.Addr().Unmap().IsLoopback() || proxied || !localName(r.Host) {
			d.fail(w, r, noSuchPath())
			return
		}
		h.ServeHTTP(w, r)
	})
}

// localName reports whether a Host header is this machine's name for itself.
func localName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && a.Unmap().IsLoopback()
}

// Headers of every answer; shared, never changed.
var (
	headerNosniff = []string{"nosniff"}
	headerNoStore = []string{"no-store"}
	headerCSP     = []string{"default-src 'none'; frame-ancestors 'none'"}
	headerJSON    = []string{"application/json"}
)

// ServeHTTP answers gRPC and REST.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		d.serveGRPC(w, r)
		return
	}
	id := idOf(r.Header)
	h := w.Header()
	h[requestIDHeader] = []string{id}
	h["X-Content-Type-Options"] = headerNosniff
	h["Cache-Control"] = headerNoStore
	h["Content-Security-Policy"] = headerCSP

	begun := d.now()
	if !d.tracing && r.Method == http.MethodGet {
		if deployment, ok := statusPath(r.URL.Path); ok {
			switch d.poll(w, r, deployment) {
			case 0:
			case http.StatusOK:
				d.figures.polled(d.now().Sub(begun))
				return
			default:
				d.figures.observe(d.figures.pollPattern, http.StatusTooManyRequests, d.now().Sub(begun))
				return
			}
		}
	}
	counted := &answer{ResponseWriter: w}
	defer func() {
		if panicked := recover(); panicked != nil {
			d.panicked(counted, r, id, panicked)
		}
		_, pattern := d.mux.Handler(r)
		d.figures.observe(pattern, counted.status(), d.now().Sub(begun))
	}()
	d.rest.ServeHTTP(counted, r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id)))
}

func (d *door) panicked(w *answer, r *http.Request, id string, panicked any) {
	if panicked == http.ErrAbortHandler {
		panic(panicked)
	}
	d.log.ErrorContext(r.Context(), "a handler panicked", "method", r.Method, "path", r.URL.Path, "request_id", id, "panic", panicked, "stack", string(debug.Stack()))
	if w.code == 0 {
		internal().Write(w)
		return
	}
	// Half an answer must not look like a whole one.
	panic(http.ErrAbortHandler)
}

// internal says no more than that it was our fault.
func internal() *problem.Error {
	return &problem.Error{Status: http.StatusInternalServerError, Code: problem.CodeInternal, Message: "Something went wrong on our side; it has been logged."}
}

func (d *door) serveGRPC(w http.ResponseWriter, r *http.Request) {
	// Streams may be longer than what bounds a request; gRPC has its own deadlines.
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		d.log.WarnContext(r.Context(), "a stream keeps its deadline", "error", err)
	}
	if err := rc.SetWriteDeadline(time.Time{}); err != nil {
		d.log.WarnContext(r.Context(), "a stream keeps its deadline", "error", err)
	}
	d.rpc.ServeHTTP(w, r)
}

// route finds the handler; paths and methods that there are not get a problem too.
func (d *door) route(w http.ResponseWriter, r *http.Request) {
	// Names and ids are text: what is none names nothing, and no message could carry it.
	if r.URL.Path != path.Clean(r.URL.Path) || !utf8.ValidString(r.URL.Path) {
		d.fail(w, r, noSuchPath())
		return
	}
	if query, err := url.QueryUnescape(r.URL.RawQuery); err == nil && !utf8.ValidString(query) {
		d.fail(w, r, problem.Malformed("The query is not UTF-8 text; encode it as UTF-8."))
		return
	}
	handler, pattern := d.mux.Handler(r)
	if err := d.limitSignIn(w, r, pattern); err != nil {
		d.fail(w, r, err)
		return
	}
	if pattern != "" {
		d.mux.ServeHTTP(w, r)
		return
	}
	refusal := &refused{header: http.Header{}}
	handler.ServeHTTP(refusal, r)
	if refusal.code != http.StatusMethodNotAllowed {
		d.fail(w, r, noSuchPath())
		return
	}
	allow := refusal.header.Get("Allow")
	w.Header().Set("Allow", allow)
	d.fail(w, r, &problem.Error{
		Status: http.StatusMethodNotAllowed, Code: "method_not_allowed",
		Message: "This path does not take that method; use " + allow + ".",
	})
}

func noSuchPath() error {
	return problem.NotFound("There is nothing at this path; GET /openapi.json lists what there is.")
}

// refused takes the mux's own refusal, of which only code and Allow are used.
type refused struct {
	header http.Header
	code   int
}

func (r *refused) Header() http.Header         { return r.header }
func (r *refused) WriteHeader(code int)        { r.code = code }
func (r *refused) Write(b []byte) (int, error) { return len(b), nil }

// answer notes the status that was sent.
type answer struct {
	http.ResponseWriter
	code int
}

func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.code == 0 {
		a.code = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) status() int {
	if a.code == 0 {
		return http.StatusOK
	}
	return a.code
}

// statusPath takes the id out of /api/deploy/apps/{id}/status.
func statusPath(p string) (id string, ok bool) {
	const before, after = "/api/deploy/apps/", "/status"
	if len(p) != len(before)+36+len(after) || !strings.HasPrefix(p, before) || !strings.HasSuffix(p, after) {
		return "", false
	}
	return p[len(before) : len(before)+36], true
}

// poll answers a status poll with JSON made when the status changed, and returns the
// status code; 0 when it did not answer: what is neither success nor too often takes
// the common way.
func (d *door) poll(w http.ResponseWriter, r *http.Request, id string) int {
	const rpc = deployv1.DeployService_GetDeploymentStatus_FullMethodName
	principal, err := d.guard.Authorize(r.Context(), rpc, authn.FromHeader(r.Header))
	if err != nil {
		return 0
	}
	status, err := d.deploy.status(r.Context(), principal, id)
	if err != nil || status == nil {
		return 0
	}
	if err := d.limitREST(w, r, principal, rpc); err != nil {
		d.fail(w, r, err)
		return http.StatusTooManyRequests
	}
	w.Header()["Content-Type"] = headerJSON
	// A failed write means that the client is gone.
	_, _ = w.Write(status.JSON)
	return http.StatusOK
}
