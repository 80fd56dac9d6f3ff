package subscriptions

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// Bounds of what one credential, and all of them, may take.
const (
	// connectionsEach bounds a credential's connections, subscriptionsEach what each of
	// those listens to, and payloadEach what it sends, in bytes: requests are small.
	connectionsEach   = 4
	subscriptionsEach = 64
	payloadEach       = 16 << 10
	// connections bounds all of them.
	connections = 4096
	// askedEach bounds a credential's questions that wait for an answer.
	askedEach = 4096
	// maxPayload is as large as an event may be, and maxPending what may wait for a slow
	// client before it is cut off.
	maxPayload = 4 << 20
	maxPending = 16 << 20
	// writeDeadline is how long a client may take nothing.
	writeDeadline = 10 * time.Second
	// answersWithin is how long a question may be answered: longer than it may ask.
	answersWithin = askedFor + 30*time.Second
	// pingEvery finds out whether silent clients are there, after three of them.
	pingEvery    = 30 * time.Second
	startTimeout = 15 * time.Second
	// sweepEvery is how soon who asks too much is cut off.
	sweepEvery = 250 * time.Millisecond
)

// upstream is the account that the log is reached by; clients are never in it.
const upstream = "log"

// door is the NATS server that outsiders connect to. Each credential is an account of
// its own, so that nobody hears or sends anything but by what is put into it: the
// organization's events and the requests of one consumer.
type door struct {
	config  Config
	known   *directory
	figures *figures
	log     *slog.Logger
	now     func() time.Time
	// open says why nobody may come in just now; nil when they may.
	open func() error

	server *server.Server
	up     *server.Account

	mu       sync.Mutex
	accounts map[string]*server.Account // by the credential's id
	inside   map[uint64]string          // credentials' ids by connection
}

func newDoor(c Config, known *directory, f *figures, log *slog.Logger, now func() time.Time, open func() error) *door {
	return &door{config: c, known: known, figures: f, log: log, now: now, open: open, accounts: map[string]*server.Account{}, inside: map[uint64]string{}}
}

// start listens and joins the log. It returns when clients can connect; the log may be
// joined later, and is joined again whenever it is lost.
func (d *door) start() error {
	options, err := d.options()
	if err != nil {
		return err
	}
	if d.server, err = server.NewServer(options); err != nil {
		return fmt.Errorf("configure the server for clients outside: %w", err)
	}
	failed := &fatal{log: d.log}
	d.server.SetLoggerV2(failed, false, false, false)
	if d.up, err = d.server.LookupAccount(upstream); err != nil {
		return fmt.Errorf("find the log's account: %w", err)
	}
	if err := d.up.AddStreamExport(subjects.LiveEvents, nil); err != nil {
		return fmt.Errorf("offer the log: %w", err)
	}
	d.server.Start()
	deadline := time.Now().Add(startTimeout)
	for !d.server.ReadyForConnections(100 * time.Millisecond) {
		if err := failed.reason(); err != nil || time.Now().After(deadline) {
			d.stop()
			return fmt.Errorf("--subscriptions-listen: start the server for clients outside on %s: %w", d.config.Listen, errors.Join(err, context.DeadlineExceeded))
		}
	}
	return nil
}

func (d *door) stop() {
	d.server.Shutdown()
	d.server.WaitForShutdown()
}

func (d *door) options() (*server.Options, error) {
	host, portText, err := net.SplitHostPort(d.config.Listen)
	if err != nil {
		return nil, fmt.Errorf("--subscriptions-listen: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("--subscriptions-listen: %w", err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	urls, err := d.config.leaves()
	if err != nil {
		return nil, err
	}
	seed, err := os.ReadFile(d.config.LeafKey)
	if err != nil {
		return nil, fmt.Errorf("--subscriptions-leaf-key: %w", err)
	}
	remote := &server.RemoteLeafOpts{LocalAccount: upstream, URLs: urls, Nkey: strings.TrimSpace(string(seed))}
	for _, u := range urls {
		if u.Scheme == "tls" {
			remote.TLS, remote.TLSConfig = true, &tls.Config{MinVersion: tls.VersionTLS12}
		}
	}
	options := &server.Options{
		ServerName: "slipway-subscriptions", Host: host, Port: port,
		NoSigs: true, NoLog: true, NoSystemAccount: true, AlwaysEnableNonce: true,
		Accounts:                   []*server.Account{server.NewAccount(upstream)},
		CustomClientAuthentication: d,
		MaxConn:                    connections,
		MaxPayload:                 maxPayload,
		MaxPending:                 maxPending,
		WriteDeadline:              writeDeadline,
		PingInterval:               pingEvery,
		TLSConfig:                  d.config.tls(),
	}
	options.LeafNode.Remotes = []*server.RemoteLeafOpts{remote}
	options.LeafNode.ReconnectInterval = time.Second
	return options, nil
}

// address is where clients connect.
func (d *door) address() string { return d.server.Addr().String() }

// joined reports whether the log is reached.
func (d *door) joined() bool { return d.server.NumLeafNodes() > 0 }

// Check implements server.Authentication: it lets in who proves to have the seed of a
// credential that lives, by signing this connection's nonce.
func (d *door) Check(c server.ClientAuthentication) bool {
	given := c.GetOpts()
	if c.Kind() != server.CLIENT {
		return false
	}
	if err := d.open(); err != nil {
		d.refuse(c, "closed", err.Error())
		return false
	}
	if !signed(given.Nkey, given.Sig, c.GetNonce()) {
		d.refuse(c, "unproved", "no NATS key, or not its signature")
		return false
	}
	// From here to the note of who is inside nothing may end: end would not see it.
	d.mu.Lock()
	defer d.mu.Unlock()
	found, ok := d.known.find(given.Nkey, d.now())
	if !ok {
		d.refuse(c, "unknown", "the key is not known, or has ended")
		return false
	}
	account, err := d.account(found)
	if err != nil {
		d.refuse(c, "failed", err.Error())
		return false
	}
	if account.MaxTotalConnectionsReached() {
		d.refuse(c, "too_many", "the credential has as many connections as it may")
		return false
	}
	c.RegisterUser(&server.User{Username: found.id, Account: account, Permissions: allows(found), ConnectionDeadline: found.expires})
	d.inside[c.GetID()] = found.id
	d.figures.connections.Set(float64(len(d.inside)))
	return true
}

func (d *door) refuse(c server.ClientAuthentication, reason, why string) {
	d.figures.refused.WithLabelValues(reason).Inc()
	d.log.Debug("a NATS client was refused", "reason", why, "address", c.RemoteAddress())
}

// signed reports whether sig is the key's over the nonce, in either base64 that clients use.
func signed(key, sig string, nonce []byte) bool {
	if len(nonce) == 0 || !nkeys.IsValidPublicUserKey(key) {
		return false
	}
	raw, err := base64.RawURLEncoding.DecodeString(sig)
	if err != nil {
		if raw, err = base64.StdEncoding.DecodeString(sig); err != nil {
			return false
		}
	}
	public, err := nkeys.FromPublicKey(key)
	return err == nil && public.Verify(nonce, raw) == nil
}

// allows is what clients with the credential may send and hear; their account has
// nothing else in it, and says no to the rest in words.
func allows(c credential) *server.Permissions {
	api := subjects.ClientsConsumerAPI(subjects.SubscriptionConsumer(c.id))
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{api.Info, api.Next, api.Ack}},
		Subscribe: &server.SubjectPermission{Allow: []string{subjects.OrgEvents(c.org), subjects.ClientInboxes}},
	}
}

// account is the credential's own, made when it first connects. d.mu is held.
func (d *door) account(c credential) (*server.Account, error) {
	if account, ok := d.accounts[c.id]; ok {
		return account, nil
	}
	account, _ := d.server.LookupOrRegisterAccount(c.id)
	limits := jwt.NewAccountClaims(c.id)
	limits.Limits.Conn, limits.Limits.LeafNodeConn = connectionsEach, 0
	limits.Limits.Subs, limits.Limits.Payload = subscriptionsEach, payloadEach
	d.server.UpdateAccountClaims(account, limits)
	consumer := subjects.SubscriptionConsumer(c.id)
	from, to := subjects.ClientsConsumerAPI(consumer), subjects.LeafConsumerAPI(consumer)
	events := subjects.OrgEvents(c.org)
	if err := errors.Join(
		// Each has exports of its own, so that its questions can be told from others'.
		d.up.AddServiceExport(to.Info, nil),
		d.up.AddServiceExportWithResponse(to.Next, server.Streamed, nil),
		d.up.SetServiceExportResponseThreshold(to.Next, answersWithin),
		d.up.AddServiceExport(to.Ack, nil),
		account.AddMappedStreamImport(d.up, subjects.LiveOf(events), events),
		account.AddServiceImport(d.up, from.Info, to.Info),
		account.AddServiceImport(d.up, from.Next, to.Next),
		account.AddServiceImport(d.up, from.Ack, to.Ack),
	); err != nil {
		return nil, fmt.Errorf("make the account of a credential: %w", err)
	}
	d.accounts[c.id] = account
	return account, nil
}

// end cuts off every connection of the credential, for that reason.
func (d *door) end(id, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut(id, reason)
}

func (d *door) cut(id, reason string) {
	for connection, of := range d.inside {
		if of == id && d.server.DisconnectClientByID(connection) == nil {
			d.figures.ended.WithLabelValues(reason).Inc()
			d.log.Info("a NATS client was cut off", "credential", id, "reason", reason)
		}
	}
}

// sweep forgets who has gone and cuts off who asks too much, until ctx ends.
func (d *door) sweep(ctx context.Context) {
	every := time.NewTicker(sweepEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			d.sweepOnce()
		}
	}
}

func (d *door) sweepOnce() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for connection := range d.inside {
		if d.server.GetClient(connection) == nil {
			delete(d.inside, connection)
		}
	}
	d.figures.connections.Set(float64(len(d.inside)))
	if d.up.NumPendingAllResponses() <= askedEach {
		return
	}
	for id := range d.accounts {
		to := subjects.LeafConsumerAPI(subjects.SubscriptionConsumer(id))
		if d.up.NumPendingResponses(to.Next)+d.up.NumPendingResponses(to.Info)+d.up.NumPendingResponses(to.Ack) > askedEach {
			d.cut(id, "asks_too_much")
		}
	}
}

// fatal passes on what the server says and keeps why it gave up.
type fatal struct {
	log *slog.Logger
	mu  sync.Mutex
	err error
}

func (f *fatal) reason() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *fatal) Noticef(format string, args ...any) { f.log.Debug(fmt.Sprintf(format, args...)) }
func (f *fatal) Warnf(format string, args ...any)   { f.log.Warn(fmt.Sprintf(format, args...)) }

// Errorf is what clients can make the server say.
func (f *fatal) Errorf(format string, args ...any) { f.log.Info(fmt.Sprintf(format, args...)) }
func (f *fatal) Debugf(string, ...any)             {}
func (f *fatal) Tracef(string, ...any)             {}

// Fatalf is how the server says that it cannot go on; it must not end the process.
func (f *fatal) Fatalf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = fmt.Errorf(format, args...)
	f.log.Error(f.err.Error())
}
