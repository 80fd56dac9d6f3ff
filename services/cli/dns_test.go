package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestZonesAndTunnelsAreKeptFromTheCommandLine(t *testing.T) {
	t.Parallel()
	h := &house{}
	mux := http.NewServeMux()
	say := func(pattern, format string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if len(body) == 0 {
				_, _ = fmt.Fprint(w, format)
				return
			}
			_, _ = fmt.Fprintf(w, format, body)
		})
	}
	say("GET /api/v1/admin/dns", `{"provider":"cloudflare","trouble":"It is \u001b[31mdown","zones":[{"name":"example.com","use":"platform"}],"wanted":3,"applied":2,"failed":1,
		"failures":[{"name":"www.acme.test","type":"CNAME","code":"taken","org":"acme","reason":"somebody else's"}],"compared_at":"2026-05-21T10:00:00Z"}`)
	say("POST /api/v1/admin/dns/sync", `{"wanted":3,"applied":3,"failed":0,"trouble":""}`)
	say("GET /api/v1/admin/dns/tunnels", `{"tunnels":[{"name":"home","status":"failed","hostnames":["a.test","*.a.test"],"service":"http://127.0.0.1:8000","reason":"no"}]}`)
	say("POST /api/v1/admin/dns/tunnels", `{"tunnel":{"name":"home","status":"ready","service":"http://127.0.0.1:8000","reason":%q}}`)
	say("DELETE /api/v1/admin/dns/tunnels/home", `{"message":"Deleted"}`)
	say("POST /api/v1/admin/dns/tunnels/home/token", `{"token":"secret","command":"TUNNEL_TOKEN=… cloudflared tunnel run"}`)
	h.Server = httptest.NewServer(mux)
	t.Cleanup(h.Close)

	h.slipway(t, "admin", "dns", "status").want(t, 0, "www.acme.test  CNAME  taken", "It is")
	h.slipway(t, "admin", "dns", "status", "--json").want(t, 0, `"use":"platform"`)
	h.slipway(t, "admin", "dns", "sync").want(t, 0, "3 records are wanted, 3 are there, 0 cannot be made.")
	h.slipway(t, "admin", "dns", "tunnels", "list").want(t, 0, "a.test, *.a.test")
	h.slipway(t, "admin", "dns", "tunnels", "create", "home", "--hostname", "a.test,*.a.test").want(t, 0, `{"name":"home","hostnames":["a.test","*.a.test"]}`)
	h.slipway(t, "admin", "dns", "tunnels", "delete", "home").want(t, 0, "Deleted")
	h.slipway(t, "admin", "dns", "tunnels", "token", "home").want(t, 0, "secret\n", "cloudflared tunnel run")
	h.slipway(t, "admin", "dns", "tunnels", "create").want(t, 2, "")
}
