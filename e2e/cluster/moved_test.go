package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/backup"
	"github.com/slipway-paas/slipway/libs/datadir"
	"github.com/slipway-paas/slipway/libs/eventstore"
	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const movedEvents = 50

// moveIn moves a platform with one embedded server into the cluster, by a backup.
func (b *book) moveIn(t *testing.T, s *servers, admin jetstream.JetStream) {
	t.Helper()
	dir, log := datadir.Dir(t.TempDir()), slog.New(slog.DiscardHandler)
	b.live(t, dir)
	source, err := backup.Open(string(dir), backup.At{}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	file := filepath.Join(t.TempDir(), "backup")
	if _, err := backup.Create(t.Context(), file, source, backup.Options{Log: log}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster can keep a stream on each server", func(ctx context.Context) error {
		_, err := admin.CreateStream(ctx, jetstream.StreamConfig{Name: "probe", Subjects: []string{"probing"}, Replicas: size})
		if err != nil {
			return err
		}
		return admin.DeleteStream(ctx, "probe")
	})
	if _, err := backup.Restore(t.Context(), file, filepath.Join(t.TempDir(), "moved"), backup.RestoreOptions{
		To: s.at(), Replicas: size, Log: log,
	}); err != nil {
		t.Fatal(err)
	}
	stream, err := admin.Stream(t.Context(), subjects.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().Config.Replicas; got != size {
		t.Errorf("the log that was moved in is on %d servers", got)
	}
}

// live is the platform's life before.
func (b *book) live(t *testing.T, dir datadir.Dir) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	keys, err := natsconn.EnsureKeys(dir.NATSKeys())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Master(dir.MasterKey()); err != nil {
		t.Fatal(err)
	}
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: dir.NATSStore(), Keys: keys, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	nc, err := natsconn.Connect(natsconn.Config{Server: server, SeedFile: keys.SeedFile(natsconn.RolePlatform), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := natsconn.Provision(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	store := eventlog.New(js, log)
	for n := range movedEvents {
		e := event(subjects.Of("acme", subjects.Node, fmt.Sprintf("old%d", n)), 0)
		sequence, err := store.Append(t.Context(), eventstore.Expected{Event: e})
		if err != nil {
			t.Fatal(err)
		}
		b.acknowledged[e.ID] = sequence
	}
}

// backUp backs the cluster up; it is proved in one server.
func (b *book) backUp(t *testing.T, s *servers) {
	t.Helper()
	dir, log := datadir.Dir(t.TempDir()), slog.New(slog.DiscardHandler)
	if _, err := seal.Master(dir.MasterKey()); err != nil {
		t.Fatal(err)
	}
	source, err := backup.Open(string(dir), s.at(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	made, err := backup.Create(t.Context(), filepath.Join(t.TempDir(), "backup"), source, backup.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if made.Events() < uint64(b.count()) {
		t.Errorf("%d events of %d were backed up", made.Events(), b.count())
	}
}

func (s *servers) at() backup.At {
	return backup.At{NATS: s.url(0), Key: filepath.Join(s.keys(), string(natsconn.RolePlatform)+".nk")}
}
