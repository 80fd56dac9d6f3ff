package table_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

func route(host, address string) *routingv1.Route {
	return &routingv1.Route{
		Host: host, State: routingv1.RouteState_ROUTE_STATE_SERVING,
		Upstreams: []*routingv1.Upstream{{InstanceId: "i", Address: address}},
	}
}

func TestReplaceKeepsWhatIsStillThereAndDropsTheRest(t *testing.T) {
	t.Parallel()
	var tab table.Table
	if tab.Loaded() {
		t.Error("a table is loaded before anything was put in")
	}
	tab.Put(route("Stays.test", "1:1"), 3)
	tab.Put(route("goes.test", "2:2"), 4)
	tab.Replace([]*routingv1.Route{route("stays.test", "3:3"), route("comes.test", "4:4")}, 2)

	if _, ok := tab.Lookup("goes.test"); ok {
		t.Error("a host that is not in the snapshot stays")
	}
	if r, ok := tab.Lookup("stays.test"); !ok || r.GetUpstreams()[0].GetAddress() != "3:3" {
		t.Errorf("the host in both is %v", r)
	}
	if tab.Len() != 2 || tab.Revision() != 2 || !tab.Loaded() {
		t.Errorf("%d hosts at revision %d", tab.Len(), tab.Revision())
	}
	tab.Delete("stays.test", 5)
	tab.Delete("stays.test", 6)
	if tab.Len() != 1 || tab.Revision() != 6 {
		t.Errorf("after a deletion made twice: %d hosts at revision %d", tab.Len(), tab.Revision())
	}
}

func TestHostsAreComparedWithoutPortDotOrCase(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"a.test": "a.test", "A.Test": "a.test", "a.test.": "a.test", "a.test:80": "a.test", "A.test.:80": "a.test",
		"[::1]:80": "::1", "": "", ":80": "",
	} {
		if got := table.Host(given); got != want {
			t.Errorf("Host(%q) = %q, want %q", given, got, want)
		}
	}
}

func TestTheCopyOnDiskComesBackWhole(t *testing.T) {
	t.Parallel()
	disk := table.Disk{Path: filepath.Join(t.TempDir(), "routes.pb")}
	var before, after table.Table
	if err := disk.Load(&after); err != nil || after.Loaded() {
		t.Fatalf("no copy: loaded %v, %v", after.Loaded(), err)
	}
	for i := range 1000 {
		before.Put(route(fmt.Sprintf("h%d.test", i), "10.0.0.1:"+strconv.Itoa(i)), uint64(i+1))
	}
	if err := disk.Save(&before); err != nil {
		t.Fatal(err)
	}
	if err := disk.Load(&after); err != nil {
		t.Fatal(err)
	}
	for _, want := range before.Routes() {
		if got, ok := after.Lookup(want.GetHost()); !ok || !proto.Equal(got, want) {
			t.Fatalf("%s came back as %v", want.GetHost(), got)
		}
	}
	if after.Len() != 1000 || after.Revision() != 0 {
		t.Errorf("%d hosts at revision %d, want 1000 at 0", after.Len(), after.Revision())
	}
}

func TestADamagedCopyIsRefusedWhole(t *testing.T) {
	t.Parallel()
	disk := table.Disk{Path: filepath.Join(t.TempDir(), "routes.pb")}
	var tab table.Table
	tab.Put(route("a.test", "1:1"), 1)
	if err := disk.Save(&tab); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(disk.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(disk.Path, whole[:len(whole)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	var after table.Table
	if err := disk.Load(&after); err == nil || after.Loaded() {
		t.Errorf("a copy cut short is loaded: %v, %d hosts", err, after.Len())
	}
}

// A lookup must cost the same whatever the number of hosts.
func BenchmarkLookup(b *testing.B) {
	for _, hosts := range []int{10, 1_000, 50_000} {
		var tab table.Table
		names := make([]string, hosts)
		for i := range hosts {
			names[i] = fmt.Sprintf("app-%d.apps.test", i)
			tab.Put(route(names[i], "10.0.0.1:80"), uint64(i+1))
		}
		b.Run(strconv.Itoa(hosts), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, ok := tab.Lookup(table.Host(names[i%hosts])); !ok {
					b.Fatal("a host is missing")
				}
			}
		})
	}
}

// A change must cost the same whatever the number of hosts.
func BenchmarkPut(b *testing.B) {
	for _, hosts := range []int{10, 1_000, 50_000} {
		var tab table.Table
		for i := range hosts {
			tab.Put(route(fmt.Sprintf("app-%d.apps.test", i), "10.0.0.1:80"), uint64(i+1))
		}
		changed := route("app-7.apps.test", "10.0.0.2:80")
		b.Run(strconv.Itoa(hosts), func(b *testing.B) {
			b.ReportAllocs()
			for i := uint64(1); b.Loop(); i++ {
				tab.Put(changed, i)
			}
		})
	}
}

func TestWhoObservesHearsOfHostsThatComeGoOrChangeTheirKind(t *testing.T) {
	t.Parallel()
	var heard []string
	routes := &table.Table{}
	routes.Put(&routingv1.Route{Host: "old.test"}, 1)
	routes.Observe(func(host string, route *routingv1.Route) {
		if route == nil {
			heard = append(heard, "-"+host)
			return
		}
		heard = append(heard, "+"+host)
	})
	route := func(host string, kind routingv1.RouteKind) *routingv1.Route {
		return &routingv1.Route{Host: host, Kind: kind}
	}
	routes.Delete("old.test", 1)
	routes.Put(route("A.test", 0), 1)
	routes.Put(route("a.test", 0), 2)
	routes.Put(route("a.test", routingv1.RouteKind_ROUTE_KIND_CUSTOM_DOMAIN), 3)
	routes.Replace([]*routingv1.Route{route("b.test", 0)}, 4)
	routes.Delete("b.test", 5)
	routes.Delete("b.test", 6)
	if got, want := strings.Join(heard, " "), "+old.test -old.test +a.test +a.test +b.test -a.test -b.test"; got != want {
		t.Errorf("heard %s, want %s", got, want)
	}
}
