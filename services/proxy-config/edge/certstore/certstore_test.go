package certstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/certstore"
)

// server is NATS with the platform's buckets, and edges that reach it with no more than
// an edge's rights.
type server struct {
	address string
	keys    natsconn.Keys
	dir     string
	nats    *natsconn.Embedded
	names   int
}

func newServer(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: l.Addr().String(), dir: t.TempDir()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s.keys, err = natsconn.EnsureKeys(filepath.Join(s.dir, "keys")); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	t.Cleanup(func() { s.nats.Stop() })
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	var err error
	s.nats, err = natsconn.StartEmbedded(natsconn.EmbeddedConfig{
		Listen: s.address, StoreDir: filepath.Join(s.dir, "store"), Keys: s.keys, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	js := s.js(t)
	if err := natsconn.Provision(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
}

// js is JetStream with the platform's rights.
func (s *server) js(t *testing.T) jetstream.JetStream {
	t.Helper()
	nc, err := natsconn.Connect(natsconn.Config{URL: s.nats.URL(), SeedFile: s.nats.SeedFile(natsconn.RolePlatform), Name: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func (s *server) edge(t *testing.T) *certstore.Storage {
	t.Helper()
	storage, _ := s.edgeWith(t, "shared.key", t.TempDir())
	return storage
}

func (s *server) edgeWith(t *testing.T, keyFile, copies string) (*certstore.Storage, *nats.Conn) {
	t.Helper()
	seed, err := nats.NkeyOptionFromSeed(s.keys.SeedFile(natsconn.RoleEdge))
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("nats://"+s.address, seed, nats.CustomInboxPrefix("_INBOX_EDGE"), nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	keys, err := seal.Master(filepath.Join(s.dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	s.names++
	storage, err := certstore.New(certstore.Config{
		NATS: nc, Box: seal.NewBox(keys), Dir: copies, Owner: fmt.Sprint("edge-", s.names), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return storage, nc
}

func TestEdgesShareWhatOneStoresAndItsLocks(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	one, two := s.edge(t), s.edge(t)
	if err := one.Store(t.Context(), crt, []byte("shared")); err != nil {
		t.Fatal(err)
	}
	if got, err := two.Load(t.Context(), crt); err != nil || string(got) != "shared" {
		t.Errorf("the other edge loads %q, %v", got, err)
	}
	if err := one.Lock(t.Context(), "name"); err != nil {
		t.Fatal(err)
	}
	if had, err := two.TryLock(t.Context(), "name"); had || err != nil {
		t.Errorf("the other edge gets the same lock: %v, %v", had, err)
	}
	if err := one.Unlock(t.Context(), "name"); err != nil {
		t.Fatal(err)
	}
	if had, err := two.TryLock(t.Context(), "name"); !had || err != nil {
		t.Errorf("a lock given back: %v, %v", had, err)
	}
}

func TestTheLockOfAnEdgeThatDiedIsFreeSoon(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	dead, nc := s.edgeWith(t, "shared.key", t.TempDir())
	alive := s.edge(t)
	if err := dead.Lock(t.Context(), "name"); err != nil {
		t.Fatal(err)
	}
	if err := alive.Lock(t.Context(), "held"); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	began := time.Now()
	if err := alive.Lock(t.Context(), "name"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > natsconn.CertificateLockTTL+3*time.Second {
		t.Errorf("it took %s", took)
	}
	if had, err := s.edge(t).TryLock(t.Context(), "held"); had || err != nil {
		t.Errorf("the lock of an edge that lives was had by another: %v, %v", had, err)
	}
}

func TestNothingLiesReadableInNATSOrOnDisk(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	copies := t.TempDir()
	storage, _ := s.edgeWith(t, "shared.key", copies)
	secret := []byte("-----BEGIN EC PRIVATE KEY-----")
	if err := storage.Store(t.Context(), key, secret); err != nil {
		t.Fatal(err)
	}
	bucket, err := s.js(t).KeyValue(t.Context(), subjects.BucketCertificates)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := bucket.Get(t.Context(), subjects.CertificateKey(key))
	if err != nil || bytes.Contains(entry.Value(), secret) {
		t.Errorf("in NATS: %v", err)
	}
	files, err := os.ReadDir(copies)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d copies, %v", len(files), err)
	}
	name := filepath.Join(copies, files[0].Name())
	if text, err := os.ReadFile(name); err != nil || bytes.Contains(text, secret) {
		t.Errorf("on disk: %v", err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("on disk: %v, %v", info.Mode(), err)
	}
}

func TestAnEdgeWithAnotherKeyIsTold(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	storage := s.edge(t)
	if err := storage.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.edge(t).Check(t.Context()); err != nil {
		t.Errorf("an edge with the same key: %v", err)
	}
	if err := storage.Store(t.Context(), crt, []byte("x")); err != nil {
		t.Fatal(err)
	}
	other, _ := s.edgeWith(t, "other.key", t.TempDir())
	if err := other.Check(t.Context()); !errors.Is(err, certstore.ErrOtherKey) {
		t.Errorf("check: %v", err)
	}
	// It must not take what it cannot read for absent, and get it anew.
	if _, err := other.Load(t.Context(), crt); !errors.Is(err, certstore.ErrOtherKey) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load: %v", err)
	}
}

func TestCertificatesAreReadFromDiskWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	copies := t.TempDir()
	storage, nc := s.edgeWith(t, "shared.key", copies)
	const account, gone = "acme/ca/users/me/me.key", "certificates/ca/gone/gone.crt"
	for _, path := range []string{crt, account, gone} {
		if err := storage.Store(t.Context(), path, []byte("kept")); err != nil {
			t.Fatal(err)
		}
	}
	if err := storage.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	s.nats.Stop()
	deadline := time.Now().Add(10 * time.Second)
	for nc.IsConnected() {
		if time.Now().After(deadline) {
			t.Fatal("the connection does not end")
		}
		time.Sleep(time.Millisecond)
	}
	restarted, _ := s.edgeWith(t, "shared.key", copies)
	for name, storage := range map[string]*certstore.Storage{"before": storage, "restarted": restarted} {
		if got, err := storage.Load(t.Context(), crt); err != nil || string(got) != "kept" {
			t.Errorf("%s: a certificate is %q, %v", name, got, err)
		}
		if _, err := storage.Load(t.Context(), account); !errors.Is(err, certstore.ErrAway) {
			t.Errorf("%s: what is not needed to serve: %v", name, err)
		}
		// That it is not on this disk does not say that there is none.
		if _, err := storage.Load(t.Context(), gone); !errors.Is(err, certstore.ErrAway) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: what is not on disk: %v", name, err)
		}
		if err := storage.Lock(t.Context(), "name"); !errors.Is(err, certstore.ErrAway) {
			t.Errorf("%s: a lock: %v", name, err)
		}
		if err := storage.Store(t.Context(), crt, []byte("x")); !errors.Is(err, certstore.ErrAway) {
			t.Errorf("%s: a store: %v", name, err)
		}
	}
	s.start(t)
	deadline = time.Now().Add(10 * time.Second)
	for restarted.Store(t.Context(), crt, []byte("new")) != nil {
		if time.Now().After(deadline) {
			t.Fatal("with NATS back nothing is stored")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got, err := restarted.Load(t.Context(), crt); err != nil || string(got) != "new" {
		t.Errorf("with NATS back: %q, %v", got, err)
	}
}
