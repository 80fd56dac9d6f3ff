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

	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// maxPayload leaves room for a deployment with all of its sealed variables.
	maxPayload = 4 << 20
	// maxMemory bounds the streams that live in memory: heartbeats, probe results, and
	// what edges say of requests.
	maxMemory = 128 << 20
	// maxStore keeps the server from counting by itself what the disk may hold: it
	// would take what is free when it starts, and refuse every write while less is.
	maxStore     = 1 << 50
	startTimeout = 15 * time.Second
)

// EmbeddedConfig says where the embedded server listens and keeps its data.
type EmbeddedConfig struct {
	// Listen is host:port; port 0 takes a free one.
	Listen string
	// StoreDir holds the streams.
	StoreDir string
	// Keys are who may connect. Run takes up keys of nodes that come and go later.
	Keys Keys
	// Leaf is where the server that outsiders connect to joins, without TLS: host:port of
	// this machine, port 0 for a free one (see LeafURL). Empty lets none join.
	Leaf string
	Log  *slog.Logger
}

// Embedded is a NATS server with JetStream inside this process. Every write is on
// disk before it is acknowledged. Run it, so that it mends itself after its disk was
// full.
type Embedded struct {
	config EmbeddedConfig
	// listen has the port that was really taken, for the next start.
	listen string
	// host and port are what the server that runs was told.
	host string
	port int
	// leafHost and leafPort are where leaf nodes join; the port is 0 when they do not.
	leafHost string
	leafPort int
	logger   *natsLogger
	stop     sync.Once

	mu      sync.Mutex
	server  *server.Server
	trouble error // why nothing can be written; nil when it can
}

// StartEmbedded starts the server and waits until it answers. It fails when the
// address is taken or the store cannot be read, with the reason.
func StartEmbedded(c EmbeddedConfig) (*Embedded, error) {
	c.StoreDir = filepath.Clean(c.StoreDir)
	e := &Embedded{config: c, listen: c.Listen, logger: newLogger(c.Log.With("part", "nats"))}
	if c.Leaf != "" {
		if err := e.leafAt(c.Leaf); err != nil {
			return nil, err
		}
	}
	if err := e.start(); err != nil {
		return nil, err
	}
	e.listen = e.server.Addr().String()
	if c.Leaf != "" {
		facts, err := e.server.Varz(nil)
		if err != nil {
			e.Stop()
			return nil, fmt.Errorf("ask the embedded NATS server where leaf nodes join: %w", err)
		}
		e.leafPort = facts.LeafNode.Port
	}
	return e, nil
}

// leafAt has leaf nodes join there.
func (e *Embedded) leafAt(address string) error {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("leaf node address %q: %w", address, err)
	}
	if e.leafPort, err = strconv.Atoi(portText); err != nil {
		return fmt.Errorf("leaf node address %q: %w", address, err)
	}
	if e.leafPort == 0 {
		e.leafPort = server.RANDOM_PORT
	}
	e.leafHost = host
	return nil
}

// start makes a server on the address and the store; the one before it has ended.
func (e *Embedded) start() error {
	host, portText, err := net.SplitHostPort(e.listen)
	if err != nil {
		return fmt.Errorf("NATS address %q: %w", e.listen, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return fmt.Errorf("NATS address %q: %w", e.listen, err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	e.host, e.port = host, port
	options, err := e.options()
	if err != nil {
		return err
	}
	ns, err := server.NewServer(options)
	if err != nil {
		return fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	e.logger.begin()
	ns.SetLoggerV2(e.logger, false, false, false)
	ns.Start()
	deadline := time.Now().Add(startTimeout)
	for !ns.ReadyForConnections(100 * time.Millisecond) {
		if reason := e.logger.reason(); reason != nil || time.Now().After(deadline) {
			ns.Shutdown()
			ns.WaitForShutdown()
			if reason == nil {
				reason = fmt.Errorf("it did not answer within %s", startTimeout)
			}
			return fmt.Errorf("start the embedded NATS server on %s: %w", e.listen, reason)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.server = ns
	return nil
}

// options are the server's, for those who have a key now.
func (e *Embedded) options() (*server.Options, error) {
	options := &server.Options{
		ServerName:         "slipway",
		Host:               e.host,
		Port:               e.port,
		NoSigs:             true,
		NoLog:              true,
		MaxPayload:         maxPayload,
		MaxPending:         32 << 20,
		JetStream:          true,
		StoreDir:           e.config.StoreDir,
		SyncAlways:         true,
		JetStreamMaxMemory: maxMemory,
		JetStreamMaxStore:  maxStore,
		Nkeys:              e.known().users(),
		// Nothing of ours asks the system account; without it there is less to keep.
		NoSystemAccount: true,
	}
	if e.leafPort == 0 {
		return options, nil
	}
	options.LeafNode.Host, options.LeafNode.Port = e.leafHost, e.leafPort
	all := server.NewAccount(server.DEFAULT_GLOBAL_ACCOUNT)
	if err := all.AddMapping(subjects.SubscriptionsAPI, subjects.JetStreamAPI); err != nil {
		return nil, fmt.Errorf("let leaf nodes call JetStream: %w", err)
	}
	options.Accounts = []*server.Account{all}
	return options, nil
}

// known are the keys of those who may connect.
func (e *Embedded) known() Keys {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.config.Keys
}

func (e *Embedded) current() *server.Server {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.server
}

// URL is where other processes reach it.
func (e *Embedded) URL() string { return "nats://" + e.listen }

// LeafURL is where the server that outsiders connect to joins; empty when none does.
func (e *Embedded) LeafURL() string {
	if e.leafPort == 0 {
		return ""
	}
	return "nats-leaf://" + net.JoinHostPort(e.leafHost, strconv.Itoa(e.leafPort))
}

// InProcessConn connects inside the process, without a socket, to the server that
// runs now; see nats.InProcessServer.
func (e *Embedded) InProcessConn() (net.Conn, error) { return e.current().InProcessConn() }

// SeedFile is the key file to give to a process of that role.
func (e *Embedded) SeedFile(role Role) string { return e.known().SeedFile(role) }

// NodeSeedFile is the key file to give to that node.
func (e *Embedded) NodeSeedFile(node string) string { return e.known().NodeSeedFile(node) }

// Ready says whether it serves and, while Run runs, whether what is written to it can
// be kept. Errors of the latter kind are ErrNotWritable.
func (e *Embedded) Ready() error {
	if err := e.Writable(); err != nil {
		return err
	}
	if ns := e.current(); !ns.Running() || !ns.JetStreamEnabled() {
		return errors.New("the embedded NATS server is not running")
	}
	return nil
}

// Stop closes all connections and the store. It may be called again.
func (e *Embedded) Stop() {
	e.stop.Do(func() {
		ns := e.current()
		ns.Shutdown()
		ns.WaitForShutdown()
	})
}

// natsLogger passes on what an operator must know and keeps why the server gave up.
type natsLogger struct {
	log *slog.Logger
	// erred has something when the server said that something failed.
	erred chan struct{}
	mu    sync.Mutex
	fatal error
}

func newLogger(log *slog.Logger) *natsLogger {
	return &natsLogger{log: log, erred: make(chan struct{}, 1)}
}

// begin forgets why the server before gave up.
func (l *natsLogger) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fatal = nil
}

func (l *natsLogger) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

func (l *natsLogger) Noticef(format string, args ...any) { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l *natsLogger) Warnf(format string, args ...any)   { l.log.Warn(fmt.Sprintf(format, args...)) }
func (l *natsLogger) Debugf(string, ...any)              {}
func (l *natsLogger) Tracef(string, ...any)              {}

func (l *natsLogger) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf(format, args...))
	select {
	case l.erred <- struct{}{}:
	default: // it is known already
	}
}

// Fatalf is how the server says that it cannot go on; it must not end the process.
func (l *natsLogger) Fatalf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fatal = fmt.Errorf(format, args...)
	l.log.Error(l.fatal.Error())
}
