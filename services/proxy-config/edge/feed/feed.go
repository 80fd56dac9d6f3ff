// Package feed keeps an edge's route table equal to the key-value bucket
// VIEW_routes, and tells the control plane which revision the edge serves.
//
// It takes a whole snapshot first, then changes. When NATS goes away the table
// stays as it was; when NATS is back a new snapshot is laid over the table, host
// by host. A watchdog does the same when the bucket was rebuilt behind a
// connection that never broke.
package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

const (
	// ackEvery is how often an edge says that it lives; the control plane forgets
	// an edge after five seconds of silence.
	ackEvery = time.Second
	// checkEvery is how often the watchdog compares the table's revision with the
	// bucket's.
	checkEvery = 5 * time.Second
	// retryAfter is the pause before a failed snapshot is tried again.
	retryAfter = 500 * time.Millisecond
	// requestTimeout bounds each question to JetStream.
	requestTimeout = 5 * time.Second
	// inboxPrefix is where the edge's key may receive answers.
	inboxPrefix = "_INBOX_EDGE"
	// saveAfter is how long changes are gathered before the copy on disk is replaced.
	saveAfter = time.Second
)

// Config says where the routes come from.
type Config struct {
	// EdgeID is this edge's token in subjects.EdgeApplied.
	EdgeID string
	// URL is the NATS server's, or several, comma-separated.
	URL string
	// NKeySeedFile holds the nkey seed to sign in with; empty for none.
	NKeySeedFile string
	// Disk is where the last table is kept; an empty path keeps none.
	Disk table.Disk
}

// Feed is one edge's line to the control plane.
type Feed struct {
	cfg   Config
	table *table.Table
	log   *slog.Logger

	nc      *nats.Conn
	rewatch chan struct{}
	applied chan struct{}
	closing atomic.Bool
	// current is false from a lost connection until the next snapshot: what was
	// applied before may be of a bucket that is no more.
	current atomic.Bool
	synced  chan struct{}
	// lost is when the connection was last lost, or first sought, in Unix nanoseconds.
	lost atomic.Int64
}

// New connects in the background: NATS being away is no error, a seed file that
// cannot be read is one. Close must be called when it succeeds.
func New(cfg Config, t *table.Table, log *slog.Logger) (*Feed, error) {
	f := &Feed{
		cfg: cfg, table: t, log: log,
		rewatch: make(chan struct{}, 1),
		applied: make(chan struct{}, 1),
		synced:  make(chan struct{}),
	}
	f.lost.Store(time.Now().UnixNano())
	opts := []nats.Option{
		nats.Name("slipway-edge " + cfg.EdgeID),
		nats.CustomInboxPrefix(inboxPrefix),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		// An acknowledgement is worth nothing later: drop it while disconnected.
		nats.ReconnectBufSize(-1),
		nats.ConnectHandler(func(*nats.Conn) { poke(f.rewatch) }),
		nats.ReconnectHandler(func(*nats.Conn) { poke(f.rewatch) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			f.current.Store(false)
			f.lost.Store(time.Now().UnixNano())
			log.Warn("the control plane is away, serving the last route table", "error", err)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Warn("NATS reported an error", "error", err)
		}),
	}
	if cfg.NKeySeedFile != "" {
		nkey, err := nats.NkeyOptionFromSeed(cfg.NKeySeedFile)
		if err != nil {
			return nil, fmt.Errorf("reading the NATS nkey seed %s: %w", cfg.NKeySeedFile, err)
		}
		opts = append(opts, nkey)
	}
	nc, err := nats.Connect(cfg.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("setting up the NATS connection: %w", err)
	}
	f.nc = nc
	return f, nil
}

// Run follows the view until ctx ends; it returns nil then.
func (f *Feed) Run(ctx context.Context) error {
	js, err := jetstream.New(f.nc)
	if err != nil {
		return fmt.Errorf("setting up JetStream: %w", err)
	}
	stopped := make(chan struct{}, 2)
	go func() { defer func() { stopped <- struct{}{} }(); f.acknowledge(ctx) }()
	go func() { defer func() { stopped <- struct{}{} }(); f.keepCopy(ctx) }()
	f.follow(ctx, js)
	<-stopped
	<-stopped
	return nil
}

// Synced is closed once the first snapshot is in the table.
func (f *Feed) Synced() <-chan struct{} { return f.synced }

// Connected reports whether NATS is there.
func (f *Feed) Connected() bool { return f.nc.IsConnected() }

// Conn is the edge's connection to NATS, which may be away. It is Close's to end.
func (f *Feed) Conn() *nats.Conn { return f.nc }

// Close ends the connection. Run must have returned.
func (f *Feed) Close() { f.nc.Close() }

func (f *Feed) follow(ctx context.Context, js jetstream.JetStream) {
	for ctx.Err() == nil {
		err := f.watch(ctx, js)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errAgain):
			continue
		case f.nc.IsConnected():
			f.log.Warn("cannot follow the routes, trying again", "error", err, "after", retryAfter)
		}
		select {
		case <-ctx.Done():
		case <-f.rewatch:
		case <-time.After(retryAfter):
		}
	}
}

// errAgain asks for a new snapshot at once: nothing failed.
var errAgain = errors.New("the view must be read anew")

// watch takes a snapshot and then changes, until the connection was renewed, the
// bucket was rebuilt, or ctx ended.
func (f *Feed) watch(ctx context.Context, js jetstream.JetStream) error {
	drain(f.rewatch)
	f.current.Store(false)
	kv, floor, err := open(ctx, js)
	if err != nil {
		return err
	}
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watching %s: %w", subjects.BucketRoutes, err)
	}
	defer func() { _ = w.Stop() }()

	if err := f.snapshot(ctx, w.Updates(), floor); err != nil {
		return err
	}
	dog := &watchdog{bucket: kv, seen: f.table.Revision()}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.rewatch:
			return errAgain
		case e, ok := <-w.Updates():
			if !ok {
				return errAgain
			}
			f.apply(e)
		case <-tick.C:
			if err := dog.check(ctx, f.table.Revision()); err != nil {
				f.log.Warn("reading the routes anew", "reason", err)
				return errAgain
			}
		}
	}
}

// snapshot gathers the bucket's values and lays them over the table. floor is the
// bucket's last sequence from before: all up to it is in the snapshot, even what
// left no value behind.
func (f *Feed) snapshot(ctx context.Context, updates <-chan jetstream.KeyValueEntry, floor uint64) error {
	revision := floor
	var routes []*routingv1.Route
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.rewatch:
			return errAgain
		case e, ok := <-updates:
			if !ok {
				return errAgain
			}
			if e == nil {
				f.table.Replace(routes, revision)
				f.current.Store(true)
				f.once()
				poke(f.applied)
				f.log.Info("route table read", "routes", len(routes), "revision", revision)
				return nil
			}
			revision = max(revision, e.Revision())
			if e.Operation() != jetstream.KeyValuePut {
				continue
			}
			if r, err := decode(e); err != nil {
				f.log.Error("a route was left out", "error", err)
			} else {
				routes = append(routes, r)
			}
		}
	}
}

func (f *Feed) apply(e jetstream.KeyValueEntry) {
	if e == nil {
		return
	}
	if e.Operation() != jetstream.KeyValuePut {
		f.table.Delete(e.Key(), e.Revision())
	} else if r, err := decode(e); err != nil {
		f.log.Error("a route was left as it was", "error", err)
		f.table.Advance(e.Revision())
	} else {
		f.table.Put(r, e.Revision())
	}
	poke(f.applied)
}

func (f *Feed) once() {
	select {
	case <-f.synced:
	default:
		close(f.synced)
	}
}

func decode(e jetstream.KeyValueEntry) (*routingv1.Route, error) {
	r := &routingv1.Route{}
	if err := proto.Unmarshal(e.Value(), r); err != nil {
		return nil, fmt.Errorf("route %s at revision %d: %w", e.Key(), e.Revision(), err)
	}
	if subjects.HostKey(r.GetHost()) != e.Key() {
		return nil, fmt.Errorf("route %s at revision %d is for %q", e.Key(), e.Revision(), r.GetHost())
	}
	return r, nil
}

func open(ctx context.Context, js jetstream.JetStream) (jetstream.KeyValue, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	kv, err := js.KeyValue(ctx, subjects.BucketRoutes)
	if err != nil {
		return nil, 0, fmt.Errorf("opening %s: %w", subjects.BucketRoutes, err)
	}
	last, err := lastSequence(ctx, kv)
	return kv, last, err
}

func lastSequence(ctx context.Context, kv jetstream.KeyValue) (uint64, error) {
	status, err := kv.Status(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking for the state of %s: %w", subjects.BucketRoutes, err)
	}
	bucket, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return 0, fmt.Errorf("state of %s is a %T", subjects.BucketRoutes, status)
	}
	return bucket.StreamInfo().State.LastSeq, nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}
