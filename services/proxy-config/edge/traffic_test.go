package edge_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// instance is an app's instance that counts, and answers as it is told.
type instance struct {
	*httptest.Server
	asked  atomic.Int64
	status atomic.Int64
}

func newInstance(t testing.TB, name string, hold func()) *instance {
	t.Helper()
	i := &instance{}
	i.status.Store(http.StatusOK)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		hold()
		w.WriteHeader(int(i.status.Load()))
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(i.Close)
	return i
}

func atOnce() {}

func TestLoadGoesToTheInstancesWithTheFewestRequests(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	release := make(chan struct{})
	slow := newInstance(t, "slow", func() { <-release })
	quick := []*instance{newInstance(t, "one", atOnce), newInstance(t, "two", atOnce)}
	c.applied(c.put(serving("three.test", addressOf(slow.Server), addressOf(quick[0].Server), addressOf(quick[1].Server))))

	var load sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	var asked atomic.Int64
	for range 6 {
		load.Go(func() {
			for ctx.Err() == nil {
				if got := e.get("three.test"); got.status != 200 {
					t.Errorf("a request got %d", got.status)
					return
				}
				asked.Add(1)
			}
		})
	}
	eventually(t, "2000 requests are answered", func() bool { return asked.Load() >= 2000 })
	// Six workers never have more than six under way: with two each the slow one has
	// what the others have, so more of them cannot be stuck there.
	if n := slow.asked.Load(); n > 3 {
		t.Errorf("%d of 6 requests at a time wait for the slow instance", n)
	}
	stop()
	close(release)
	load.Wait()
	a, b := quick[0].asked.Load(), quick[1].asked.Load()
	if least, most := min(a, b), max(a, b); most > 2*least {
		t.Errorf("two equal instances got %d and %d requests", a, b)
	}
}

func TestEqualInstancesGetEqualLoad(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	all := []*instance{newInstance(t, "a", atOnce), newInstance(t, "b", atOnce), newInstance(t, "c", atOnce)}
	c.applied(c.put(serving("equal.test", addressOf(all[0].Server), addressOf(all[1].Server), addressOf(all[2].Server))))
	const requests = 1500
	for range requests {
		e.get("equal.test")
	}
	for i, one := range all {
		// Six standard deviations of a binomial with p = 1/3.
		if n := one.asked.Load(); n < requests/3-110 || n > requests/3+110 {
			t.Errorf("instance %d got %d of %d requests", i, n, requests)
		}
	}
}

func TestAnInstanceThatFailsIsPassedOverUntilItServesAgain(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir(), "--edge-id", "edge-one", "--eject-burst", "5", "--eject-for", "1s")
	reports, err := c.nc.SubscribeSync(subjects.AllEdgeUpstreams)
	if err != nil {
		t.Fatal(err)
	}
	bad, good := newInstance(t, "bad", atOnce), newInstance(t, "good", atOnce)
	route := serving("pair.test", addressOf(bad.Server), addressOf(good.Server))
	route.OrgId, route.DeploymentId, route.ReleaseId = "acme", "d1", "r1"
	c.applied(c.put(route))

	bad.status.Store(http.StatusInternalServerError)
	eventually(t, "it is passed over", func() bool {
		e.get("pair.test")
		return strings.Contains(e.log.String(), "an instance is passed over")
	})
	msg, err := reports.NextMsg(patience)
	if err != nil {
		t.Fatalf("health hears nothing of it: %v", err)
	}
	report := &edgev1.UpstreamReport{}
	if err := proto.Unmarshal(msg.Data, report); err != nil {
		t.Fatal(err)
	}
	if msg.Subject != subjects.EdgeUpstream("edge-one") || report.GetEdgeId() != "edge-one" || report.GetOrgId() != "acme" ||
		report.GetDeploymentId() != "d1" || report.GetReleaseId() != "r1" || report.GetInstanceId() != "i0" ||
		report.GetFailures() < 5 || report.GetReason() == "" || !report.GetUntil().AsTime().After(report.GetAt().AsTime()) {
		t.Errorf("health hears %v", report)
	}
	before := bad.asked.Load()
	for range 30 {
		if got := e.get("pair.test"); got.status != 200 {
			t.Fatalf("a request got %d", got.status)
		}
	}
	if bad.asked.Load() != before {
		t.Error("it was asked all the same")
	}
	bad.status.Store(http.StatusOK)
	eventually(t, "it is asked again", func() bool { return e.get("pair.test").body == "bad" })
}

func TestAStaleInstanceCostsNoClientARequest(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir(), "--eject-for", "1m")
	alive := httptest.NewServer(http.HandlerFunc(work))
	t.Cleanup(alive.Close)
	c.applied(c.put(serving("stale.test", freeAddress(t), addressOf(alive), freeAddress(t))))
	// As after a cut from the control plane: the table keeps what has ended.
	c.stop()
	for n := range 100 {
		if failure := ask(http.DefaultClient, e.http, "stale.test", n%2 == 0); failure != "" {
			t.Fatal(failure)
		}
	}
	if n := strings.Count(e.log.String(), "an instance is passed over"); n != 2 {
		t.Errorf("%d of the 2 that ended were noticed", n)
	}
	c.start()
}

func TestAClientStaysWithItsInstanceByACookie(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	one, two := newInstance(t, "one", atOnce), newInstance(t, "two", atOnce)
	route := serving("sticky.test", addressOf(one.Server), addressOf(two.Server))
	c.applied(c.put(route))
	if got := e.get("sticky.test"); got.header.Get("Set-Cookie") != "" {
		t.Fatalf("a cookie that nobody asked for: %s", got.header.Get("Set-Cookie"))
	}
	route.Policy = &routingv1.RoutePolicy{Sticky: true}
	c.applied(c.put(route))

	first := e.get("sticky.test")
	line := first.header.Get("Set-Cookie")
	cookie, err := http.ParseSetCookie(line)
	if err != nil {
		t.Fatal(err)
	}
	if !cookie.HttpOnly || cookie.Secure || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Value == "" {
		t.Errorf("the cookie is %s", line)
	}
	for _, secret := range []string{"127.0.0.1", addressOf(one.Server), "i0", "i1"} {
		if strings.Contains(cookie.Value, secret) {
			t.Errorf("the cookie tells %s", secret)
		}
	}
	for range 30 {
		got := e.get("sticky.test", "Cookie", cookie.Name+"="+cookie.Value)
		if got.body != first.body || got.header.Get("Set-Cookie") != "" {
			t.Fatalf("with the cookie of %s: %s, %q", first.body, got.body, got.header.Get("Set-Cookie"))
		}
	}

	// Its instance goes: the client gets another one, and keeps that.
	left := one
	if first.body == "one" {
		left = two
	}
	moved := serving("sticky.test", addressOf(left.Server))
	moved.Policy = route.Policy
	c.applied(c.put(moved))
	got := e.get("sticky.test", "Cookie", cookie.Name+"="+cookie.Value)
	if got.status != 200 || got.body == first.body || !strings.HasPrefix(got.header.Get("Set-Cookie"), cookie.Name+"=") {
		t.Errorf("after its instance went: %d %s %q", got.status, got.body, got.header.Get("Set-Cookie"))
	}
	if got := e.get("sticky.test", "Cookie", cookie.Name+"=made-up"); got.status != 200 {
		t.Errorf("a made-up cookie gets %d", got.status)
	}
}

func TestTheCookieIsForHTTPSOnlyWhereThatIsSpoken(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir())
	route := serving("secure.test", addressOf(app(t, "a")), addressOf(app(t, "b")))
	route.Policy = &routingv1.RoutePolicy{Sticky: true}
	c.applied(c.put(route))
	conn, err := e.dialTLSAs("secure.test", "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if cookie := roundTrip(t, conn, http.MethodGet, "secure.test", nil).Header.Get("Set-Cookie"); !strings.Contains(cookie, "; Secure") {
		t.Errorf("over HTTPS the cookie is %q", cookie)
	}
}

// breaker takes requests whole and breaks the connection off, as an app that dies.
func breaker(t *testing.T) (address string, got *atomic.Int64) {
	t.Helper()
	got = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got.Add(1)
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
	}))
	t.Cleanup(s.Close)
	return addressOf(s), got
}

func TestOnlyWhatIsSafeToAskTwiceIsAskedTwice(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir(), "--eject-after", "0")
	for _, test := range []struct {
		method, body string
		again        bool
	}{
		{http.MethodGet, "", true}, {http.MethodHead, "", true}, {http.MethodOptions, "", true},
		{http.MethodGet, "with a body", false}, {http.MethodPost, "", false}, {http.MethodPost, "x", false},
		{http.MethodPut, "x", false}, {http.MethodPatch, "x", false}, {http.MethodDelete, "", false},
	} {
		address, got := breaker(t)
		alive := newInstance(t, "alive", atOnce)
		c.applied(c.put(serving("twice.test", address, addressOf(alive.Server))))
		failed := 0
		for n := 0; n < 200 && got.Load() < 20; n++ {
			req, err := http.NewRequestWithContext(t.Context(), test.method, "http://"+e.http+"/", strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			if test.body == "" {
				req.Body, req.GetBody = nil, nil
			}
			req.Host = "twice.test"
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusBadGateway {
				failed++
			} else if resp.StatusCode != http.StatusOK {
				t.Errorf("%s %q: %d", test.method, test.body, resp.StatusCode)
			}
		}
		if broken := int(got.Load()); broken == 0 || !test.again && failed != broken || test.again && failed != 0 {
			t.Errorf("%s with body %q met the broken instance %d times and failed %d times", test.method, test.body, broken, failed)
		}
	}
}

func TestABodyIsSentWholeToTheInstanceThatIsThere(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	e := c.edge(t.TempDir(), "--eject-after", "0")
	sum := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != 3<<20 {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(sum.Close)
	c.applied(c.put(serving("body.test", freeAddress(t), addressOf(sum), freeAddress(t))))
	for n := range 20 {
		// Every second one is chunked: its length is not known before.
		var body io.Reader = strings.NewReader(strings.Repeat("x", 3<<20))
		if n%2 == 1 {
			body = io.MultiReader(body)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+e.http+"/", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "body.test"
		if n%4 >= 2 {
			req.Header.Set("Expect", "100-continue")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("request %d: %d", n, resp.StatusCode)
		}
	}
}

// roundTrip asks over a connection that is already there.
func roundTrip(t *testing.T, conn net.Conn, method, host string, body io.Reader) *http.Response {
	t.Helper()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+host+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close(); transport.CloseIdleConnections() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return resp
}
