package natsconn

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// maxPayload leaves room for a deployment with all of its sealed variables.
	maxPayload = 4 << 20
	// maxMemory bounds the streams that live in memory: heartbeats and probe results.
	maxMemory    = 64 << 20
	startTimeout = 15 * time.Second
)

// EmbeddedConfig says where the embedded server listens and keeps its data.
type EmbeddedConfig struct {
	// Listen is host:port; port 0 takes a free one.
	Listen string
	// StoreDir holds the streams.
	StoreDir string
	// Keys are who may connect.
	Keys Keys
	Log  *slog.Logger
}

// Embedded is a NATS server with JetStream inside this process. Every write is on
// disk before it is acknowledged.
type Embedded struct {
	Server *server.Server
	keys   Keys
	stop   sync.Once
}

// StartEmbedded starts the server and waits until it answers. It fails when the
// address is taken or the store cannot be read, with the reason.
func StartEmbedded(c EmbeddedConfig) (*Embedded, error) {
	host, portText, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("NATS address %q: %w", c.Listen, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("NATS address %q: %w", c.Listen, err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	logger := &natsLogger{log: c.Log.With("part", "nats")}
	ns, err := server.NewServer(&server.Options{
		ServerName:         "slipway",
		Host:               host,
		Port:               port,
		NoSigs:             true,
		NoLog:              true,
		MaxPayload:         maxPayload,
		MaxPending:         32 << 20,
		JetStream:          true,
		StoreDir:           filepath.Clean(c.StoreDir),
		SyncAlways:         true,
		JetStreamMaxMemory: maxMemory,
		Nkeys:              c.Keys.users(),
		// Nothing of ours asks the system account; without it there is less to keep.
		NoSystemAccount: true,
	})
	if err != nil {
		return nil, fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	ns.SetLoggerV2(logger, false, false, false)
	ns.Start()
	deadline := time.Now().Add(startTimeout)
	for !ns.ReadyForConnections(100 * time.Millisecond) {
		if reason := logger.reason(); reason != nil || time.Now().After(deadline) {
			ns.Shutdown()
			ns.WaitForShutdown()
			if reason == nil {
				reason = fmt.Errorf("it did not answer within %s", startTimeout)
			}
			return nil, fmt.Errorf("start the embedded NATS server on %s: %w", c.Listen, reason)
		}
	}
	return &Embedded{Server: ns, keys: c.Keys}, nil
}

// URL is where other processes reach it.
func (e *Embedded) URL() string { return "nats://" + e.Server.Addr().String() }

// SeedFile is the key file to give to a process of that role.
func (e *Embedded) SeedFile(role Role) string { return e.keys.SeedFile(role) }

// Ready says whether it serves.
func (e *Embedded) Ready() error {
	if !e.Server.Running() || !e.Server.JetStreamEnabled() {
		return errors.New("the embedded NATS server is not running")
	}
	return nil
}

// Stop closes all connections and the store. It may be called again.
func (e *Embedded) Stop() {
	e.stop.Do(func() {
		e.Server.Shutdown()
		e.Server.WaitForShutdown()
	})
}

// natsLogger passes on what an operator must know and keeps why the server gave up.
type natsLogger struct {
	log   *slog.Logger
	mu    sync.Mutex
	fatal error
}

func (l *natsLogger) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

func (l *natsLogger) Noticef(format string, args ...any) { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l *natsLogger) Warnf(format string, args ...any)   { l.log.Warn(fmt.Sprintf(format, args...)) }
func (l *natsLogger) Errorf(format string, args ...any)  { l.log.Error(fmt.Sprintf(format, args...)) }
func (l *natsLogger) Debugf(string, ...any)              {}
func (l *natsLogger) Tracef(string, ...any)              {}

// Fatalf is how the server says that it cannot go on; it must not end the process.
func (l *natsLogger) Fatalf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fatal = fmt.Errorf(format, args...)
	l.log.Error(l.fatal.Error())
}
