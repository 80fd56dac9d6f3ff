package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/e2e/stack"
	"github.com/slipway-paas/slipway/libs/eventstore"
	store "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/readmodel"
)

const (
	// copied is how many events the anchor copies at a time.
	copied = 20_000
	// flowing is how often an event comes while a rebuild is under way.
	flowing = 5 * time.Millisecond
)

// rebuildSection rebuilds the real read model of deployments while events flow, beside
// reading the same events and copying them into a table as they are.
func rebuildSection(ctx context.Context, b *bench) (err error) {
	l, err := newLongLog(ctx, b.events)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	url, closeIt, err := stack.Database(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeIt()) }()
	pool, err := pgxpool.New(ctx, url+"&pool_max_conns=12")
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer pool.Close()
	runner, err := projection.New(pool, l.store, readmodel.Projection(l.store), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- runner.Run(running) }()
	if err := runner.WaitFor(ctx, uint64(b.events)); err != nil {
		return fmt.Errorf("wait for the live rows: %w", errors.Join(err, runner.Ready()))
	}
	say("live rows from nothing, 500 events at a time", fmt.Sprintf("%.0f events/s", float64(b.events)/time.Since(began).Seconds()), "no goal")
	// Alternately, so that both meet the same machine.
	for range 2 {
		anchor, err := l.copyRate(ctx, pool, b.events)
		if err != nil {
			return err
		}
		if err := l.rebuildRate(ctx, pool, runner, anchor); err != nil {
			return err
		}
	}
	stop()
	return <-ended
}

func (l *longLog) rebuildRate(ctx context.Context, pool *pgxpool.Pool, runner *projection.Runner, anchor float64) error {
	flow, stop := context.WithCancel(ctx)
	defer stop()
	flowed := make(chan error, 1)
	go func() { flowed <- l.flow(flow) }()
	began := time.Now()
	done, err := runner.Rebuild(ctx, false)
	took := time.Since(began)
	stop()
	if err := errors.Join(err, <-flowed); err != nil {
		return err
	}
	if !done.Identical() || !done.Swapped {
		return fmt.Errorf("the rebuilt rows are not the live ones: %q", done.Differences)
	}
	built, whole := float64(done.Events)/done.Build.Seconds(), float64(done.Events)/took.Seconds()
	raw := fmt.Sprintf("raw consume + COPY %.0f/s", anchor)
	compare(fmt.Sprintf("rebuild of %d events, rows built", done.Events), fmt.Sprintf("%.0f events/s", built), raw, ratio(built, anchor), "at least 0.5x")
	compare("the same until they are proved and live", fmt.Sprintf("%.0f events/s", whole), raw, ratio(whole, anchor), "at least 0.5x")
	say(fmt.Sprintf("comparing %d rows", done.Rows), ms(done.Compare), "no goal")
	say("live rows held, twice together", ms(done.Held), "no goal")
	gone, err := l.untilGone(ctx, pool, runner.Schema()+"_former", began)
	if err != nil {
		return err
	}
	whole = float64(done.Events) / gone.Seconds()
	compare("until the old rows are dropped, behind it", fmt.Sprintf("%.0f events/s", whole), raw, ratio(whole, anchor), "no goal: nobody waits for it")
	return nil
}

// untilGone is how long after began a schema was there.
func (l *longLog) untilGone(ctx context.Context, pool *pgxpool.Pool, schema string, began time.Time) (time.Duration, error) {
	for {
		var there bool
		if err := pool.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", schema).Scan(&there); err != nil {
			return 0, fmt.Errorf("look for the old rows: %w", err)
		}
		if !there {
			return time.Since(began), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// longLog is a log of many events. Its server writes to disk when it likes: it is
// filled to be read.
type longLog struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	store    *store.Store
	journeys *journeys
	close    func() error
}

func newLongLog(ctx context.Context, events int) (*longLog, error) {
	dir, err := os.MkdirTemp("", "slipway-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the log: %w", err)
	}
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true, MaxPending: 32 << 20})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a NATS server: %w", err), os.RemoveAll(dir))
	}
	ns.Start()
	l := &longLog{journeys: newJourneys(), close: func() error {
		ns.Shutdown()
		ns.WaitForShutdown()
		return os.RemoveAll(dir)
	}}
	if !ns.ReadyForConnections(10 * time.Second) {
		return nil, errors.Join(errors.New("the NATS server does not answer"), l.close())
	}
	if err := l.fill(ctx, ns.ClientURL(), events); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *longLog) fill(ctx context.Context, url string, events int) (err error) {
	if l.nc, err = nats.Connect(url); err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	if l.js, err = jetstream.New(l.nc, jetstream.WithPublishAsyncMaxPending(4096)); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	l.store = store.New(l.js, slog.New(slog.DiscardHandler))
	_, err = l.js.CreateStream(ctx, jetstream.StreamConfig{Name: subjects.StreamEvents, Subjects: []string{subjects.AllEvents}, AllowDirect: true, Storage: jetstream.FileStorage})
	if err != nil {
		return fmt.Errorf("make the stream: %w", err)
	}
	for range events {
		if err := l.publish(); err != nil {
			return err
		}
	}
	select {
	case <-l.js.PublishAsyncComplete():
	case <-ctx.Done():
		return fmt.Errorf("fill the log: %w", ctx.Err())
	}
	last, err := l.store.LastSequence(ctx, subjects.AllEvents)
	for errors.Is(err, eventstore.ErrUnavailable) && ctx.Err() == nil {
		// The server is still writing what it has acknowledged.
		last, err = l.store.LastSequence(ctx, subjects.AllEvents)
	}
	if err == nil && last != uint64(events) {
		err = fmt.Errorf("the log holds %d events, not %d", last, events)
	}
	return err
}

// publish sends the next event as the event store writes it, and does not wait.
func (l *longLog) publish() error {
	a, e, at := l.journeys.next()
	data, err := proto.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode %T: %w", e, err)
	}
	kind := e.ProtoReflect().Descriptor()
	// A busy machine may be slow to answer; that is no figure of ours.
	_, err = l.js.PublishMsgAsync(&nats.Msg{Subject: a.Event(string(kind.Name())), Data: data, Header: nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {"0198f000-0000-7000-8000-000000000000"}, "ce-type": {string(kind.FullName())},
		"ce-source": {"bench"}, "ce-time": {at.Format(time.RFC3339Nano)}, "ce-subject": {a.String()},
		"content-type": {"application/protobuf"}, "Slipway-Actor": {"app"}, "Nats-Expected-Stream": {subjects.StreamEvents},
	}}, jetstream.WithStallWait(time.Minute))
	if err != nil {
		return fmt.Errorf("publish %s: %w", kind.Name(), err)
	}
	return nil
}

// flow goes on with the log until ctx ends.
func (l *longLog) flow(ctx context.Context) error {
	tick := time.NewTicker(flowing)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := l.publish(); err != nil {
				return err
			}
		}
	}
}

// copyRate is the anchor: it reads the same events from JetStream and copies them into
// a table, not looked into; reading and writing go on side by side.
func (l *longLog) copyRate(ctx context.Context, pool *pgxpool.Pool, events int) (float64, error) {
	if _, err := pool.Exec(ctx, "DROP TABLE IF EXISTS raw; CREATE TABLE raw (sequence bigint, subject text, at timestamptz, data bytea)"); err != nil {
		return 0, fmt.Errorf("make the anchor's table: %w", err)
	}
	consumer, err := l.js.OrderedConsumer(ctx, subjects.StreamEvents, jetstream.OrderedConsumerConfig{FilterSubjects: readmodel.Filters()})
	if err != nil {
		return 0, fmt.Errorf("make a consumer: %w", err)
	}
	began := time.Now()
	messages, err := consumer.Messages()
	if err != nil {
		return 0, fmt.Errorf("consume: %w", err)
	}
	defer messages.Stop()
	group, ctx := errgroup.WithContext(ctx)
	chunks := make(chan [][]any, 1)
	group.Go(func() error {
		defer close(chunks)
		rows := make([][]any, 0, copied)
		for n := range events {
			m, err := messages.Next(jetstream.NextContext(ctx))
			if err != nil {
				return fmt.Errorf("consume: %w", err)
			}
			meta, err := m.Metadata()
			if err != nil {
				return fmt.Errorf("consume: %w", err)
			}
			rows = append(rows, []any{int64(meta.Sequence.Stream), m.Subject(), meta.Timestamp, m.Data()})
			if len(rows) < copied && n < events-1 {
				continue
			}
			select {
			case chunks <- rows:
				rows = make([][]any, 0, copied)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	group.Go(func() error {
		for rows := range chunks {
			if _, err := pool.CopyFrom(ctx, pgx.Identifier{"raw"}, []string{"sequence", "subject", "at", "data"}, pgx.CopyFromRows(rows)); err != nil {
				return fmt.Errorf("copy: %w", err)
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return 0, err
	}
	return float64(events) / time.Since(began).Seconds(), nil
}
