package edge_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
)

func TestCloudflareSaysWhoAskedAndNobodyElseDoes(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	address, seen := mirror(t)
	// This machine stands for Cloudflare's by the file, and for a stranger without it.
	file := t.TempDir() + "/ranges.txt"
	write(t, file, "# of the test\n127.0.0.0/8\n")
	behind := c.edge(t.TempDir(), "--trusted-proxies", "cloudflare,10.0.0.0/8", "--cloudflare-ranges", file)
	direct := c.edge(t.TempDir(), "--trusted-proxies", "cloudflare")
	lb := c.edge(t.TempDir(), "--trusted-proxies", "127.0.0.0/8")
	c.put(serving("who.test", address))
	for _, edge := range []*edgeProcess{behind, direct, lb} {
		eventually(t, "all edges have the route", func() bool { return edge.get("who.test").status == 200 && <-seen != nil })
	}
	for what, tc := range map[string]struct {
		edge         *edgeProcess
		said         []string
		client, kept string
	}{
		"Cloudflare":              {behind, []string{"CF-Connecting-IP", "7.7.7.7", "X-Forwarded-For", "6.6.6.6, 7.7.7.7"}, "7.7.7.7", "7.7.7.7"},
		"Cloudflare, by IPv6":     {behind, []string{"CF-Connecting-IP", "2001:db8::7"}, "2001:db8::7", "2001:db8::7"},
		"Cloudflare, in nonsense": {behind, []string{"CF-Connecting-IP", "localhost", "X-Forwarded-For", "6.6.6.6, 7.7.7.7"}, "7.7.7.7", ""},
		"a stranger":              {direct, []string{"CF-Connecting-IP", "7.7.7.7", "X-Forwarded-For", "7.7.7.7"}, "127.0.0.1", ""},
		"another proxy":           {lb, []string{"CF-Connecting-IP", "6.6.6.6", "X-Forwarded-For", "6.6.6.6, 8.8.8.8"}, "8.8.8.8", ""},
	} {
		tc.edge.get("who.test", tc.said...)
		got := <-seen
		if got.Get("X-Real-Ip") != tc.client || got.Get("Cf-Connecting-Ip") != tc.kept {
			t.Errorf("%s: the app is told X-Real-Ip %q, CF-Connecting-IP %q", what, got.Get("X-Real-Ip"), got.Get("Cf-Connecting-Ip"))
		}
	}
}

func TestALoadBalancerSaysWhoAskedByThePROXYProtocol(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	address, seen := mirror(t)
	from := c.edge(t.TempDir(), "--proxy-protocol-from", "127.0.0.0/8")
	notFrom := c.edge(t.TempDir(), "--proxy-protocol-from", "10.0.0.0/8")
	c.put(serving("who.test", address))
	for _, edge := range []*edgeProcess{from, notFrom} {
		eventually(t, "both edges have the route", func() bool { return edge.get("who.test").status == 200 && <-seen != nil })
	}
	ask := func(edge *edgeProcess) int {
		conn, err := net.Dial("tcp", edge.http)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "PROXY TCP4 7.7.7.7 127.0.0.1 4444 80\r\nGET / HTTP/1.1\r\nHost: who.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if status := ask(from); status != 200 {
		t.Fatalf("through the load balancer: %d", status)
	}
	if got := <-seen; got.Get("X-Real-Ip") != "7.7.7.7" || got.Get("X-Forwarded-For") != "7.7.7.7" {
		t.Errorf("the app is told %v", got)
	}
	if status := ask(notFrom); status != 400 {
		t.Errorf("a stranger with such a header: %d, want 400", status)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
