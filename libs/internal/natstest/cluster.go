package natstest

import (
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/subjects"
)

const clusterSize = 3

// Cluster runs three servers until the test ends, with the stream of all events
// replicated to each, and returns a connection to each.
func Cluster(t testing.TB) []jetstream.JetStream {
	t.Helper()
	var routes []*url.URL
	var ports []int
	for range clusterSize {
		port := freePort(t)
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	var connections []jetstream.JetStream
	for i, port := range ports {
		s := &Server{t: t, opts: server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 128 << 20,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port}, Routes: routes,
		}}
		s.Up()
		t.Cleanup(s.Down)
		connections = append(connections, s.Connect())
	}
	for late := time.Now().Add(2 * startTimeout); ; time.Sleep(50 * time.Millisecond) {
		_, err := connections[0].CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{
			Name: subjects.StreamEvents, Subjects: []string{subjects.AllEvents}, Replicas: clusterSize,
			Duplicates: 2 * time.Minute, AllowAtomicPublish: true, AllowDirect: true,
		})
		if err == nil {
			return connections
		}
		if time.Now().After(late) {
			t.Fatalf("make the stream of events in a cluster: %v", err)
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
