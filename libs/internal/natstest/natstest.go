// Package natstest runs a real NATS server with JetStream inside a test, with the
// platform's streams, and can take it down and up again.
package natstest

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/subjects"
)

const startTimeout = 15 * time.Second

// Server is one NATS server that keeps its port and its data over a restart.
type Server struct {
	t    testing.TB
	opts server.Options
	ns   *server.Server
}

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, opts: server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, NoSystemAccount: true,
		JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, JetStreamMaxMemory: 128 << 20,
	}}
	s.Up()
	t.Cleanup(s.Down)
	return s
}

// Up starts the server again after Down.
func (s *Server) Up() {
	s.t.Helper()
	opts := s.opts
	ns, err := server.NewServer(&opts)
	if err != nil {
		s.t.Fatalf("configure the NATS server: %v", err)
	}
	ns.Start()
	if !ns.ReadyForConnections(startTimeout) {
		s.t.Fatalf("the NATS server did not answer within %s", startTimeout)
	}
	s.ns = ns
	s.opts.Port = opts.Port
}

// Down stops the server and waits for it.
func (s *Server) Down() {
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}

// Connect connects a client, closed when the test ends, that never gives up.
func (s *Server) Connect() jetstream.JetStream {
	s.t.Helper()
	return s.connect()
}

func (s *Server) connect(opts ...nats.Option) jetstream.JetStream {
	s.t.Helper()
	nc, err := nats.Connect(s.ns.ClientURL(), append(reconnects(), opts...)...)
	if err != nil {
		s.t.Fatalf("connect to NATS: %v", err)
	}
	s.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		s.t.Fatalf("use JetStream: %v", err)
	}
	return js
}

// Events connects and makes the stream of all events.
func (s *Server) Events() jetstream.JetStream {
	s.t.Helper()
	js := s.Connect()
	if _, err := js.CreateOrUpdateStream(s.t.Context(), jetstream.StreamConfig{
		Name: subjects.StreamEvents, Subjects: []string{subjects.AllEvents}, Storage: jetstream.FileStorage,
		Duplicates: 2 * time.Minute, AllowAtomicPublish: true, AllowDirect: true, DenyDelete: true, DenyPurge: true,
	}); err != nil {
		s.t.Fatalf("make the stream of events: %v", err)
	}
	return js
}

// Bucket makes a key-value bucket.
func (s *Server) Bucket(js jetstream.JetStream, cfg jetstream.KeyValueConfig) {
	s.t.Helper()
	cfg.History = 1
	if _, err := js.CreateOrUpdateKeyValue(context.WithoutCancel(s.t.Context()), cfg); err != nil {
		s.t.Fatalf("make the bucket %s: %v", cfg.Bucket, err)
	}
}
