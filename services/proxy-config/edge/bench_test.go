package edge_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// BenchmarkEdge measures one GET through the edge, with few routes and with many,
// beside the same GET to the app itself. It also reports the edge's resident
// memory, how long a fresh edge needs for its first table, and how long a change
// takes to be acknowledged.
func BenchmarkEdge(b *testing.B) {
	for _, hosts := range []int{10, 50_000} {
		b.Run(strconv.Itoa(hosts), func(b *testing.B) {
			c := newControl(b)
			upstream := app(b, "hello")
			fill(b, c, hosts, addressOf(upstream))
			started := time.Now()
			e := c.edge(b.TempDir(), "--log-level", "error")
			ready := time.Since(started)

			b.Run("change", func(b *testing.B) {
				for b.Loop() {
					c.applied(c.put(serving("app-7.test", addressOf(upstream))))
				}
			})
			b.Run("get", func(b *testing.B) {
				i := 0
				for b.Loop() {
					fetch(b, e.http, fmt.Sprintf("app-%d.test", i%hosts))
					i++
				}
				b.ReportMetric(float64(residentMB(b, e.cmd.Process.Pid)), "rss-MB")
				b.ReportMetric(ready.Seconds()*1000, "start-ms")
			})
			b.Run("direct", func(b *testing.B) {
				for b.Loop() {
					fetch(b, addressOf(upstream), "app-0.test")
				}
			})
		})
	}
}

// BenchmarkHandshake measures the first TLS handshake of a host: its certificate
// is made meanwhile.
func BenchmarkHandshake(b *testing.B) {
	c := newControl(b)
	fill(b, c, 2000, addressOf(app(b, "hello")))
	e := c.edge(b.TempDir(), "--log-level", "error")
	i := 0
	for b.Loop() {
		conn, err := e.dialTLS(fmt.Sprintf("app-%d.test", i%2000))
		if err != nil {
			b.Fatal(err)
		}
		_ = conn.Close()
		i++
	}
}

// BenchmarkFirstHandshakes measures how long the last of 50 visitors waits who come at
// once to 50 names that are new: each gets its certificate from an ACME CA meanwhile,
// which validates it.
func BenchmarkFirstHandshakes(b *testing.B) {
	const names = 50
	ca := newAuthority(b)
	c := newControl(b)
	e := c.acmeEdge(ca, "127.0.0.1", "--log-level", "error", "--acme-orders", "1000")
	n := 0
	for b.Loop() {
		firstHandshakes(b, c, ca, e, names, fmt.Sprintf("b%d-", n))
		n++
	}
	b.ReportMetric(float64(ca.orders.Load())/float64(n), "orders")
}

func fill(b *testing.B, c *control, hosts int, address string) {
	b.Helper()
	for i := range hosts {
		r := serving(fmt.Sprintf("app-%d.test", i), address)
		value, err := proto.Marshal(r)
		if err != nil {
			b.Fatal(err)
		}
		subject := "$KV." + subjects.BucketRoutes + "." + r.GetHost()
		if i%500 == 499 {
			_, err = c.nc.Request(subject, value, 10*time.Second)
		} else {
			err = c.nc.Publish(subject, value)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func fetch(b *testing.B, address, host string) {
	req, err := http.NewRequest(http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(body) != "hello" {
		b.Fatalf("%s: %d %s %v", host, resp.StatusCode, body, err)
	}
	if err := resp.Body.Close(); err != nil {
		b.Fatal(err)
	}
}

func residentMB(b *testing.B, pid int) int {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.Fatal(err)
			}
			return kb / 1024
		}
	}
	b.Fatal("no resident memory in /proc")
	return 0
}
