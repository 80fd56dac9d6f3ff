package natstest

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Line is one client's way to the server, which can be cut.
type Line struct {
	mu   sync.Mutex
	cut  bool
	conn net.Conn
}

// Dial is for the NATS client.
func (l *Line) Dial(network, address string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, errors.New("the line is cut")
	}
	conn, err := net.DialTimeout(network, address, startTimeout)
	l.conn = conn
	return conn, err
}

// Cut ends the connection and lets no other one through.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	_ = l.conn.Close()
}

// Mend lets connections through again.
func (l *Line) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// ConnectOver is Connect over a line that can be cut.
func (s *Server) ConnectOver() (jetstream.JetStream, *Line) {
	s.t.Helper()
	line := &Line{}
	return s.connect(nats.SetCustomDialer(line)), line
}

func reconnects() []nats.Option {
	return []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0)}
}
