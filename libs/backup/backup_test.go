package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/backup"
	"github.com/slipway-paas/slipway/libs/datadir"
	"github.com/slipway-paas/slipway/libs/eventstore"
	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const passphrase = "correct horse battery"

var silent = slog.New(slog.DiscardHandler)

// platform is what a daemon keeps and serves.
type platform struct {
	t     *testing.T
	dir   datadir.Dir
	stop  func()
	js    jetstream.JetStream
	store eventstore.Store
	keys  seal.KV
}

// run serves a data directory as a daemon does.
func run(t *testing.T, dir string) *platform {
	t.Helper()
	p := &platform{t: t, dir: datadir.Dir(dir)}
	held, err := datadir.Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := natsconn.EnsureKeys(p.dir.NATSKeys(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: p.dir.NATSStore(), Keys: keys, Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := natsconn.Connect(natsconn.Config{Server: server, SeedFile: keys.SeedFile(natsconn.RolePlatform), Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	p.stop = sync.OnceFunc(func() {
		nc.Close()
		server.Stop()
		_ = held.Release() // the end of the test does it too
	})
	t.Cleanup(p.stop)
	if p.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	if err := natsconn.Provision(t.Context(), p.js, 1); err != nil {
		t.Fatal(err)
	}
	bucket, err := p.js.KeyValue(t.Context(), subjects.BucketKeys)
	if err != nil {
		t.Fatal(err)
	}
	p.store, p.keys = eventlog.New(p.js, silent), seal.NewKV(bucket)
	if _, err := seal.Master(p.dir.MasterKey()); err != nil {
		t.Fatal(err)
	}
	p.write("settings.yaml", fmt.Sprintf("data-dir: %s\nnats: %s\nbase-domain: apps.test\n", dir, strings.TrimPrefix(server.URL(), "nats://")))
	return p
}

func (p *platform) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(string(p.dir), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func deployment(n int) subjects.Aggregate {
	return subjects.Of("acme", subjects.Deployment, fmt.Sprintf("d%d", n))
}

// deploy makes a deployment's data key, then its first event.
func (p *platform) deploy(n int) error {
	a := deployment(n)
	if err := p.keys.Create(p.t.Context(), a, []byte(a.ID)); err != nil {
		return err
	}
	_, err := p.store.Append(p.t.Context(), eventstore.Expected{Event: eventstore.Event{
		Aggregate: a, ID: a.ID, Payload: wrapperspb.String(a.ID), Time: time.Unix(int64(n), 7), Source: "test", Actor: "ada", TraceParent: "00-1-2-03",
	}})
	return err
}

func (p *platform) all() []eventstore.Recorded {
	p.t.Helper()
	var all []eventstore.Recorded
	ctx, done := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer done()
	if err := p.store.Follow(ctx, 0, func(_ context.Context, events []eventstore.Recorded) error {
		all = append(all, events...)
		return nil
	}, done, subjects.AllEvents); err != nil {
		p.t.Fatal(err)
	}
	return all
}

func (p *platform) backup(path, passphrase string) (backup.Manifest, error) {
	p.t.Helper()
	source, err := backup.Open(string(p.dir), backup.At{}, silent)
	if err != nil {
		p.t.Fatal(err)
	}
	defer source.Close()
	return backup.Create(p.t.Context(), path, source, backup.Options{Passphrase: passphrase, Images: true, Version: "test", Log: silent})
}

func TestAPlatformIsAsItWasAfterBackupAndRestoreWhileCommandsFlow(t *testing.T) {
	t.Parallel()
	was := run(t, t.TempDir())
	was.write("credentials.json", `{"access_token":"hidden"}`)
	was.write("registry/docker/registry/v2/blobs/sha256/ab/abc/data", "a layer")
	was.write("registry/docker/registry/v2/repositories/app/_uploads/1/data", "half a layer")
	for n := range 300 {
		if err := was.deploy(n); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := 300; ctx.Err() == nil; n++ {
			if err := was.deploy(n); err != nil {
				t.Error(err)
				return
			}
		}
	})
	file := filepath.Join(t.TempDir(), "backup")
	made, err := was.backup(file, passphrase)
	stop()
	writer.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if made.Events() < 300 {
		t.Errorf("%d events were backed up", made.Events())
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v: %v", info.Mode(), err)
	}

	dir := filepath.Join(t.TempDir(), "new")
	restored, err := backup.Restore(t.Context(), file, dir, backup.RestoreOptions{Passphrase: passphrase, Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, restored); diff != "" {
		t.Error(diff)
	}
	is := run(t, dir)
	if diff := cmp.Diff(was.all()[:made.Events()], is.all(), protocmp.Transform()); diff != "" {
		t.Errorf("the log differs:\n%s", diff)
	}
	for n := range made.Events() {
		if key, err := is.keys.Get(t.Context(), deployment(int(n))); err != nil || string(key) != deployment(int(n)).ID {
			t.Errorf("the data key of deployment %d: %q, %v", n, key, err)
		}
	}
	for _, name := range []string{"master.key", "credentials.json", "nats/keys/platform.nk", "nats/keys/node-n1.nk", "nats/keys/edge.nk", "registry/docker/registry/v2/blobs/sha256/ab/abc/data"} {
		before, err := os.ReadFile(filepath.Join(string(was.dir), name))
		if err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s is not as it was: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "registry/docker/registry/v2/repositories/app/_uploads")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an upload that was under way is there: %v", err)
	}
	settings, err := os.ReadFile(is.dir.Restored())
	if want := "base-domain: apps.test\ndata-dir: " + dir + "\n"; err != nil || !bytes.HasPrefix(settings, []byte(want)) {
		t.Errorf("the settings are\n%s, want\n%s (%v)", settings, want, err)
	}
	if err := is.deploy(1 << 20); err != nil {
		t.Errorf("the restored platform takes no command: %v", err)
	}
}

func TestAPlatformThatDoesNotRunCanBeBackedUp(t *testing.T) {
	t.Parallel()
	p := run(t, t.TempDir())
	if err := p.deploy(1); err != nil {
		t.Fatal(err)
	}
	p.stop()
	made, err := p.backup(filepath.Join(t.TempDir(), "backup"), "")
	if err != nil || made.Events() != 1 {
		t.Errorf("%d events, %v", made.Events(), err)
	}
}

func TestADataKeyDestroyedMeanwhileIsKeptForALogThatStillNeedsIt(t *testing.T) {
	t.Parallel()
	p := run(t, t.TempDir())
	for n := range 2 {
		if err := p.deploy(n); err != nil {
			t.Fatal(err)
		}
	}
	before, err := backup.ReadKeys(t.Context(), p.js)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.keys.Destroy(t.Context(), deployment(1)); err != nil {
		t.Fatal(err)
	}
	late, err := backup.LateKeys(t.Context(), p.js, before)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]byte{"acme.deployment.d1": []byte("d1")}, late); diff != "" {
		t.Error(diff)
	}
	if err := backup.PutKeys(t.Context(), p.js, late); err != nil {
		t.Fatal(err)
	}
	if key, err := p.keys.Get(t.Context(), deployment(1)); err != nil || string(key) != "d1" {
		t.Errorf("the key that was put back: %q, %v", key, err)
	}
}

func TestAPlatformWhoseMasterKeyIsGivenIsBackedUpWithoutIt(t *testing.T) {
	t.Parallel()
	p := run(t, t.TempDir())
	if err := os.Remove(p.dir.MasterKey()); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Open(string(p.dir), backup.At{}, silent); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a lost master key is no reason to stop: %v", err)
	}
	source, err := backup.Open(string(p.dir), backup.At{NoMasterKey: true}, silent)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	file, dir := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "data")
	if _, err := backup.Create(t.Context(), file, source, backup.Options{Version: "test", Log: silent}); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Restore(t.Context(), file, dir, backup.RestoreOptions{Log: silent}); err != nil {
		t.Error(err)
	}
}

func TestABackupFromBetweenTwoRotationsOpensWithTheKeysInIt(t *testing.T) {
	t.Parallel()
	p := run(t, t.TempDir())
	open := func(q *platform) *seal.Sealer {
		t.Helper()
		master, err := seal.Master(q.dir.MasterKey())
		if err != nil {
			t.Fatal(err)
		}
		return seal.New(master, q.keys)
	}
	s, a := open(p), deployment(1)
	_, sealed, err := s.Seal(t.Context(), a, map[string]string{"TOKEN": "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "backup")
	if _, err := p.backup(file, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rotate(t.Context()); err != nil {
		t.Fatalf("after the backup: %v", err)
	}
	release, err := seal.Hold(p.dir.MasterKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.backup(file+"2", ""); !errors.Is(err, seal.ErrHeld) {
		t.Errorf("a backup during a rotation: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := backup.Restore(t.Context(), file, dir, backup.RestoreOptions{Log: silent}); err != nil {
		t.Fatal(err)
	}
	if got, err := open(run(t, dir)).Open(t.Context(), a, sealed); err != nil || got["TOKEN"] != "hunter2" {
		t.Errorf("restored: %v, %v", got, err)
	}
}

func TestWhatMustNotBeIsRefused(t *testing.T) {
	t.Parallel()
	p := run(t, t.TempDir())
	if err := p.deploy(1); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, clear := filepath.Join(dir, "encrypted"), filepath.Join(dir, "clear")
	for path, secret := range map[string]string{file: passphrase, clear: ""} {
		if _, err := p.backup(path, secret); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(clear)
	if err != nil {
		t.Fatal(err)
	}
	change := func(name string, change func([]byte) []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, change(bytes.Clone(content)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cut := change("cut", func(b []byte) []byte { return b[:len(b)/2] })
	flipped := change("flipped", func(b []byte) []byte {
		b[bytes.Index(b, []byte("SU"))+20] ^= 1 // in a key
		return b
	})
	empty := func() string { return filepath.Join(t.TempDir(), "data") }
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, dir, passphrase string
		want                  error
	}{
		"no passphrase":             {file, empty(), "", backup.ErrPassphrase},
		"another passphrase":        {file, empty(), "something else entirely", backup.ErrPassphrase},
		"a file that is cut off":    {cut, empty(), "", backup.ErrDamaged},
		"a file that was changed":   {flipped, empty(), "", backup.ErrDamaged},
		"a directory that is used":  {clear, string(p.dir), "", datadir.ErrInUse},
		"a directory with anything": {clear, full, "", backup.ErrNotEmpty},
	} {
		_, err := backup.Restore(t.Context(), c.file, c.dir, backup.RestoreOptions{Passphrase: c.passphrase, Log: silent})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if _, err := os.Stat(filepath.Join(c.dir, datadir.Restoring)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: something was left in %s", name, c.dir)
		}
	}
	if _, err := p.backup(file, passphrase); !errors.Is(err, backup.ErrExists) {
		t.Errorf("a second backup to the same file: %v", err)
	}
}
