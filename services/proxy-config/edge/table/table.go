// Package table is the edge's live route table: which host goes to which
// upstreams right now. One writer (the feed) changes it, any number of requests
// read it; a lookup costs the same with ten routes and with fifty thousand.
package table

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Table maps hosts to routes. Lookup is safe from any goroutine; Put, Delete and
// Replace are called by one goroutine at a time. A route is never changed after
// it was put in.
type Table struct {
	routes   sync.Map // subjects.HostKey(host) -> *routingv1.Route
	size     atomic.Int64
	revision atomic.Uint64
	version  atomic.Uint64
	loaded   atomic.Bool
	changes  func(host string)
	observe  func(host string, route *routingv1.Route)
}

// Observe has f told of each host that is there, is new or gets another kind, and with nil
// of each that goes, by whoever changes the table. It is called once, while nobody does.
func (t *Table) Observe(f func(host string, route *routingv1.Route)) {
	t.observe = f
	for _, route := range t.Routes() {
		f(subjects.HostKey(route.GetHost()), route)
	}
}

// Watch has fn called after each change of a host's route, on the goroutine that
// made the change. It must be called before the first one.
func (t *Table) Watch(fn func(host string)) { t.changes = fn }

// Lookup returns the route of a normalised host (see Host).
func (t *Table) Lookup(host string) (*routingv1.Route, bool) {
	v, ok := t.routes.Load(host)
	if !ok {
		return nil, false
	}
	return v.(*routingv1.Route), true
}

// Put sends a host to what the route says, from that revision on.
func (t *Table) Put(route *routingv1.Route, revision uint64) {
	t.put(route)
	t.changed(revision)
}

// Delete makes the host of that VIEW_routes key unknown, from that revision on.
func (t *Table) Delete(key string, revision uint64) {
	t.remove(key)
	t.changed(revision)
}

// Advance notes a revision that changed no route.
func (t *Table) Advance(revision uint64) { t.revision.Store(revision) }

// Replace makes the table hold exactly these routes, host by host: a host that
// is in both is never unknown in between. The revision may be lower than before,
// when the view it came from was rebuilt.
func (t *Table) Replace(routes []*routingv1.Route, revision uint64) {
	keep := make(map[string]struct{}, len(routes))
	for _, r := range routes {
		keep[subjects.HostKey(r.GetHost())] = struct{}{}
		t.put(r)
	}
	t.routes.Range(func(key, _ any) bool {
		if _, ok := keep[key.(string)]; !ok {
			t.remove(key.(string))
		}
		return true
	})
	t.loaded.Store(true)
	t.changed(revision)
}

// Revision is that of the last change applied; 0 until the control plane was heard.
func (t *Table) Revision() uint64 { return t.revision.Load() }

// Version grows with each change since the process began.
func (t *Table) Version() uint64 { return t.version.Load() }

// Len is the number of hosts.
func (t *Table) Len() int { return int(t.size.Load()) }

// Loaded reports whether the table was ever filled, from the view or from disk:
// before that an absent host means nothing.
func (t *Table) Loaded() bool { return t.loaded.Load() }

// Routes returns all routes, in no order.
func (t *Table) Routes() []*routingv1.Route {
	routes := make([]*routingv1.Route, 0, t.Len())
	t.routes.Range(func(_, v any) bool {
		routes = append(routes, v.(*routingv1.Route))
		return true
	})
	return routes
}

func (t *Table) put(route *routingv1.Route) {
	key := subjects.HostKey(route.GetHost())
	before, had := t.routes.Swap(key, route)
	if !had {
		t.size.Add(1)
	}
	if t.observe != nil && (!had || before.(*routingv1.Route).GetKind() != route.GetKind()) {
		t.observe(key, route)
	}
	t.tell(key)
}

func (t *Table) remove(key string) {
	if _, had := t.routes.LoadAndDelete(key); had {
		t.size.Add(-1)
		if t.observe != nil {
			t.observe(key, nil)
		}
	}
	t.tell(key)
}

func (t *Table) tell(host string) {
	if t.changes != nil {
		t.changes(host)
	}
}

func (t *Table) changed(revision uint64) {
	t.revision.Store(revision)
	t.version.Add(1)
}

// Host normalises a request's Host or a TLS server name for Lookup: no port, no
// trailing dot, lower case.
func Host(hostport string) string {
	host := hostport
	if strings.IndexByte(hostport, ':') >= 0 {
		if h, _, err := net.SplitHostPort(hostport); err == nil {
			host = h
		}
	}
	return subjects.HostKey(strings.TrimSuffix(host, "."))
}

// Serves reports whether the route has somewhere to send a request to.
func Serves(route *routingv1.Route) bool {
	return route.GetState() == routingv1.RouteState_ROUTE_STATE_SERVING && len(route.GetUpstreams()) > 0
}
