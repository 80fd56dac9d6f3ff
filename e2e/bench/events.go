package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	store "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	appends   = 3000
	aggregate = 10 // events of each deployment
)

// logUnderTest is an event log of its own: JetStream that has every write on disk
// before it says so, as the platform's has.
type logUnderTest struct {
	js    jetstream.JetStream
	store *store.Store
	close func() error
}

func newLog(ctx context.Context) (*logUnderTest, error) {
	dir, err := os.MkdirTemp("", "slipway-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the log: %w", err)
	}
	quiet := slog.New(slog.DiscardHandler)
	keys, err := natsconn.EnsureKeys(filepath.Join(dir, "keys"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{
		Listen: "127.0.0.1:0", StoreDir: filepath.Join(dir, "store"), Keys: keys, Log: quiet,
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	nc, err := natsconn.Connect(natsconn.Config{
		URL: server.URL(), SeedFile: server.SeedFile(natsconn.RolePlatform), Name: "bench", Log: quiet,
	})
	if err != nil {
		server.Stop()
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	l := &logUnderTest{close: func() error {
		nc.Close()
		server.Stop()
		return os.RemoveAll(dir)
	}}
	if l.js, err = jetstream.New(nc); err == nil {
		err = natsconn.Provision(ctx, l.js, 1)
	}
	if err == nil {
		_, err = l.js.CreateStream(ctx, jetstream.StreamConfig{Name: "RAW", Subjects: []string{"raw.>"}, Storage: jetstream.FileStorage})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set the log up: %w", err), l.close())
	}
	l.store = store.New(l.js, quiet)
	return l, nil
}

func fact(i int) proto.Message {
	return &deploymentv1.InstanceHealthy{
		ReleaseId: "0198f000-0000-7000-8000-000000000000", InstanceId: "instance-" + strconv.Itoa(i), ContainerId: "container", Attempt: 1,
	}
}

func deploymentOf(i int) subjects.Aggregate {
	return subjects.Of("bench", subjects.Deployment, "d"+strconv.Itoa(i/aggregate))
}

func eventsSection(ctx context.Context, _ *bench) (err error) {
	l, err := newLog(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	ours, err := l.appendRate(ctx)
	if err != nil {
		return err
	}
	raw, err := l.publishRate(ctx)
	if err != nil {
		return err
	}
	compare("appends with expected sequence, 1 writer", fmt.Sprintf("%.0f/s", ours),
		fmt.Sprintf("raw JetStream publish %.0f/s", raw), ratio(ours, raw), "beside it")
	return l.readSection(ctx)
}

// appendRate appends decisions, each expecting the one before.
func (l *logUnderTest) appendRate(ctx context.Context) (float64, error) {
	last := map[subjects.Aggregate]uint64{}
	began := time.Now()
	for i := range appends {
		a := deploymentOf(i)
		sequence, err := l.store.Append(ctx, eventstore.Expected{LastSequence: last[a], Event: eventstore.Event{
			Aggregate: a, ID: "bench-" + strconv.Itoa(i), Payload: fact(i), Time: time.Now(), Source: "bench",
		}})
		if err != nil {
			return 0, fmt.Errorf("append event %d: %w", i, err)
		}
		last[a] = sequence
	}
	return appends / time.Since(began).Seconds(), nil
}

func (l *logUnderTest) publishRate(ctx context.Context) (float64, error) {
	began := time.Now()
	for i := range appends {
		data, err := proto.Marshal(fact(i))
		if err != nil {
			return 0, fmt.Errorf("encode message %d: %w", i, err)
		}
		if _, err := l.js.Publish(ctx, "raw.d"+strconv.Itoa(i/aggregate), data); err != nil {
			return 0, fmt.Errorf("publish message %d: %w", i, err)
		}
	}
	return appends / time.Since(began).Seconds(), nil
}
