package cli_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// frontDoor answers what is asked of the app hello's requests.
type frontDoor struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
	put   map[string]any
}

func (d *frontDoor) slipway(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, map[string]string{"SLIPWAY_API_URL": d.URL, "SLIPWAY_TOKEN": token}, args...)
}

func (d *frontDoor) last() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[len(d.asked)-1]
}

func atTheDoor(t *testing.T) *frontDoor {
	t.Helper()
	d := &frontDoor{}
	mux := http.NewServeMux()
	ingress := `{"ingress":{"maintenance":true,"max_request_bytes":10485760,"request_timeout_seconds":60,"sticky":false,"drain_seconds":0,"compression":true}}`
	mux.HandleFunc("GET /api/v1/apps/hello/ingress", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, ingress) })
	mux.HandleFunc("PUT /api/v1/apps/hello/ingress", func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.put = nil
		_ = json.NewDecoder(r.Body).Decode(&d.put)
		_, _ = io.WriteString(w, ingress)
	})
	mux.HandleFunc("GET /api/v1/apps/hello/metrics/requests", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"window":"5m0s","requests":300,"rate":1,"errors":{"client":6,"server":3},"error_rate":0.01,"p50_ms":1.5,"p90_ms":20,"p99_ms":1234.56,"bytes_in":0,"bytes_out":1536}`)
	})
	mux.HandleFunc("GET /api/v1/apps/hello/logs", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("format") == "json" {
			_, _ = io.WriteString(w, "{\"path\":\"/1\"}\n\n{\"path\":\"/2\"}\n")
			return
		}
		_, _ = io.WriteString(w, "at router: path=\"/1\"\n\nat router: path=\"/\x1b[31m2\"\n")
	})
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.asked = append(d.asked, r.Method+" "+r.URL.RequestURI())
		d.mu.Unlock()
		if _, pattern := mux.Handler(r); pattern == "" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":"not_found","message":"App not found."}`)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(d.Close)
	return d
}

func TestRequestsOfAnAppAreShown(t *testing.T) {
	t.Parallel()
	d := atTheDoor(t)
	d.slipway(t, "logs", "hello", "--source", "router", "-n", "7").want(t, 0, "at router: path=\"/1\"\nat router: path=\"/")
	if got := d.last(); got != "GET /api/v1/apps/hello/logs?follow=false&format=text&lines=7&source=router" {
		t.Errorf("asked for %s", got)
	}
	if got := d.slipway(t, "logs", "hello", "--source", "router", "--json"); got.out != "{\"path\":\"/1\"}\n{\"path\":\"/2\"}\n" {
		t.Errorf("as JSON it is %q", got.out)
	}
	d.slipway(t, "logs", "nobody", "--source", "router").want(t, 4, "", "App not found.")
	d.slipway(t, "logs", "hello", "--source", "app").want(t, 2, "", "audit and router")
	d.slipway(t, "logs", "hello", "--follow").want(t, 2, "", "slipway events hello --follow")

	got := d.slipway(t, "metrics", "hello", "--window", "10m")
	got.want(t, 0, "300 (1.00 a second)")
	got.want(t, 0, "6 of clients (4xx), 3 of the app (5xx, 1.00 %)")
	got.want(t, 0, "p50 1.5ms, p90 20ms, p99 1.2346s")
	got.want(t, 0, "0 in, 1.5k out")
	if got := d.last(); got != "GET /api/v1/apps/hello/metrics/requests?window=10m" {
		t.Errorf("asked for %s", got)
	}
	d.slipway(t, "metrics", "hello", "--json").want(t, 0, `"p99_ms":1234.56`)
}

func TestTheIngressIsShownAndChangedInPeoplesUnits(t *testing.T) {
	t.Parallel()
	d := atTheDoor(t)
	d.slipway(t, "ingress", "hello").want(t, 0, "maintenance:  on\nmax-body:     10M\ntimeout:      1m0s\nsticky:       off\ndrain:        default\ncompression:  on\n")
	d.slipway(t, "ingress", "hello", "--json").want(t, 0, `"max_request_bytes":10485760`)
	for _, tc := range []struct {
		args []string
		want map[string]any
	}{
		{[]string{"maintenance:on", "hello"}, map[string]any{"maintenance": true}},
		{[]string{"maintenance:off", "hello"}, map[string]any{"maintenance": false}},
		{[]string{"ingress:set", "hello", "max-body=10M", "timeout=2m", "sticky=on", "drain=default", "compression=off"},
			map[string]any{"max_request_bytes": 10485760.0, "request_timeout_seconds": 120.0, "sticky": true, "drain_seconds": 0.0, "compression": false}},
		{[]string{"ingress:set", "hello", "max-body=default", "maintenance=off"}, map[string]any{"max_request_bytes": 0.0, "maintenance": false}},
	} {
		d.slipway(t, tc.args...).want(t, 0, "maintenance:")
		if len(d.put) != len(tc.want) {
			t.Errorf("%v sends %v", tc.args, d.put)
		}
		for name, want := range tc.want {
			if d.put[name] != want {
				t.Errorf("%v sends %v for %s", tc.args, d.put[name], name)
			}
		}
	}
	for _, bad := range []string{"max-body=ten", "max-body=-1", "max-body=99999999999G", "timeout=1500ms", "timeout=soon", "sticky=yes", "colour=red", "sticky"} {
		d.slipway(t, "ingress:set", "hello", bad).want(t, 2, "")
	}
	d.slipway(t, "ingress:set", "hello").want(t, 2, "")
}
