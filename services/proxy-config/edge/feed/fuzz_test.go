package feed

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/pages"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// value is one entry of the bucket as the wire gives it.
type value struct {
	jetstream.KeyValueEntry
	key       string
	data      []byte
	operation jetstream.KeyValueOp
}

func (v value) Key() string                     { return v.key }
func (v value) Value() []byte                   { return v.data }
func (v value) Revision() uint64                { return 9 }
func (v value) Created() time.Time              { return time.Time{} }
func (v value) Operation() jetstream.KeyValueOp { return v.operation }

// FuzzEveryEntryIsServedOrLeft: whatever is in the bucket, a host that had a route
// before keeps it or gets a readable one, its revision moves on, and a request for
// any host gets an answer.
func FuzzEveryEntryIsServedOrLeft(f *testing.F) {
	route, err := proto.Marshal(&routingv1.Route{Host: "a.test", State: routingv1.RouteState_ROUTE_STATE_SERVING,
		Upstreams: []*routingv1.Upstream{{InstanceId: "i", Address: "10.0.0.1:80"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a.test", route, "a.test:443", false)
	f.Add("A.test", route, "A.TEST.", false)
	f.Add("b.test", route, "[::1", true)
	f.Add("", []byte{}, "", false)
	f.Add("stays.test", []byte("\n\x0astays.test\x18\x7f"), "stays.test", false)
	f.Add("<script>", []byte("\n\x08<script>"), "<script>", false)
	log := slog.New(slog.DiscardHandler)
	writer, err := pages.NewWriter()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key string, data []byte, host string, deleted bool) {
		var routes table.Table
		routes.Put(&routingv1.Route{Host: "stays.test"}, 1)
		feed := &Feed{table: &routes, log: log, applied: make(chan struct{}, 1)}
		operation := jetstream.KeyValuePut
		if deleted {
			operation = jetstream.KeyValueDelete
		}
		feed.apply(value{key: key, data: data, operation: operation})
		if routes.Revision() != 9 {
			t.Fatalf("the revision stays at %d: the control plane would wait for this edge", routes.Revision())
		}
		if _, known := routes.Lookup("stays.test"); !known && !deleted {
			t.Fatal("a host lost its route")
		}
		if got, known := routes.Lookup(key); known && key != "stays.test" && !strings.EqualFold(got.GetHost(), key) {
			t.Fatalf("%q is sent to what %q has", key, got.GetHost())
		}
		name := table.Host(host)
		if got, known := routes.Lookup(name); known {
			table.Serves(got)
		}
		answer := httptest.NewRecorder()
		if err := writer.Write(answer, httptest.NewRequest(http.MethodGet, "/", nil), name, pages.UnknownHost()); err != nil {
			t.Fatal(err)
		}
		if body := answer.Body.String(); strings.Contains(strings.ToLower(body), "<script") {
			t.Fatalf("the page repeats markup of the host: %s", body)
		}
	})
}
