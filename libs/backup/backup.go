// Package backup takes a whole platform into one file and brings it back: the log
// with every event as it was, the wrapped data keys, the master key and the keys to
// NATS, the first operator's credentials, the settings and the pushed images. Rows,
// views and containers are not in it: they follow from the log.
//
// A backup is called good only when it has been restored: its streams in a server
// of their own, held against the live ones message by message, and the file read
// again to its end.
package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// format is raised when an older program could not restore the file.
const format = 1

// MinPassphrase is how many characters a passphrase has at least.
const MinPassphrase = 12

var (
	// ErrExists: the file that is to be written is there already.
	ErrExists = errors.New("there is a file of that name, and a backup is never overwritten: choose another")
	// ErrPassphrase: the file is encrypted, and not with this passphrase, or none was given.
	ErrPassphrase = errors.New("the backup is encrypted and needs its passphrase")
	// ErrDamaged: the file is no backup, is cut off, or was changed.
	ErrDamaged = errors.New("the backup is damaged")
	// ErrDifferent: what was restored is not what was backed up.
	ErrDifferent = errors.New("what was restored differs from what was backed up")
)

// Manifest says what a backup holds.
type Manifest struct {
	Format int `json:"format"`
	// Made is when the backup was begun; Version is of the program that made it.
	Made    time.Time `json:"made"`
	Version string    `json:"version"`
	Streams []Stream  `json:"streams"`
	// LateKeys are wrapped data keys that were destroyed while the log was copied, of
	// deployments that the copied log has not destroyed yet.
	LateKeys map[string][]byte `json:"late_keys,omitempty"`
	Images   bool              `json:"images"`
}

// Stream is one stream as it was when it was copied.
type Stream struct {
	Name     string `json:"name"`
	Messages uint64 `json:"messages"`
	Last     uint64 `json:"last_sequence"`
	// SHA256 is over every message: sequence, time, subject, headers, data.
	SHA256 string `json:"sha256"`
}

// Events is how many events the backup holds.
func (m Manifest) Events() uint64 {
	for _, s := range m.Streams {
		if s.Name == subjects.StreamEvents {
			return s.Messages
		}
	}
	return 0
}

// Options of a backup.
type Options struct {
	// Passphrase encrypts the file with age when not empty.
	Passphrase string
	// Images takes the built-in registry's images too.
	Images  bool
	Version string
	// Begin hears of each long part of the work when it begins; nil for nobody.
	Begin func(part string)
	Log   *slog.Logger
}

// Create writes a backup of the platform to a new file with mode 0600, while commands
// flow. The file appears when it has been proved good. It needs room for the log
// twice beside the file. Errors: ErrExists, ErrDifferent, seal.ErrHeld.
func Create(ctx context.Context, path string, from *Source, o Options) (Manifest, error) {
	if _, err := os.Lstat(path); err == nil {
		return Manifest{}, fmt.Errorf("%s: %w", path, ErrExists)
	}
	// The data keys that are copied and the master keys that wrap them must belong together.
	release, err := seal.Hold(from.dir.MasterKey())
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = release() }()                                   // the process's end does it too
	work, err := os.MkdirTemp(filepath.Dir(path), ".slipway-backup-*") // is 0700
	if err != nil {
		return Manifest{}, fmt.Errorf("make a place for the backup: %w", err)
	}
	defer os.RemoveAll(work)
	m := Manifest{Format: format, Made: time.Now().UTC(), Version: o.Version, Images: o.Images}
	streams := filepath.Join(work, "streams")
	begin := told(o.Begin)
	begin("copying the log and the keys")
	keysBefore, err := readKeys(ctx, from.js)
	if err != nil {
		return Manifest{}, err
	}
	// The log before the keys: a key is made before the event that needs it.
	for _, name := range backedUp() {
		if err := snapshot(ctx, from.nats, name, filepath.Join(streams, name)); err != nil {
			return Manifest{}, err
		}
	}
	begin("restoring the copy into a server of its own, to prove it")
	if err := rehearse(ctx, from.js, work, streams, keysBefore, &m, o.Log); err != nil {
		return Manifest{}, fmt.Errorf("the backup is not good: %w", err)
	}
	begin("writing " + path)
	made := filepath.Join(work, "backup")
	if err := writeArchive(ctx, made, from, streams, m, o); err != nil {
		return Manifest{}, err
	}
	begin("reading it back")
	if err := readBack(ctx, made, o.Passphrase); err != nil {
		return Manifest{}, fmt.Errorf("the backup is not good: %w", err)
	}
	// Unlike a rename, a link does not write over a file that came meanwhile.
	if err := os.Link(made, path); err != nil {
		return Manifest{}, fmt.Errorf("name the backup: %w", err)
	}
	return m, syncDir(filepath.Dir(path))
}

// told is somebody who hears, in any case.
func told(begin func(string)) func(string) {
	if begin == nil {
		return func(string) {}
	}
	return begin
}

// backedUp are the streams in a backup, in the order they are copied. Deliveries to
// webhooks are not: the log has their events, and a restored platform would send what
// the one before has delivered since.
func backedUp() []string {
	return []string{subjects.StreamEvents, keysStream}
}

const keysStream = "KV_" + subjects.BucketKeys

// rehearse restores the copied streams into a server of their own, holds them
// against the live ones, and notes in the manifest what they are.
func rehearse(ctx context.Context, live jetstream.JetStream, work, streams string, keysBefore map[string][]byte, m *Manifest, log *slog.Logger) error {
	keys, err := natsconn.EnsureKeys(filepath.Join(work, "scratch", "keys"))
	if err != nil {
		return err
	}
	scratch, stop, err := serve(filepath.Join(work, "scratch", "store"), keys, log)
	if err != nil {
		return err
	}
	defer stop()
	for _, name := range backedUp() {
		if err := restoreStream(ctx, scratch, name, filepath.Join(streams, name), 1); err != nil {
			return err
		}
	}
	restored, err := jetstream.New(scratch)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	if err := compareLog(ctx, live, restored); err != nil {
		return err
	}
	if err := compareKeys(ctx, live, restored); err != nil {
		return err
	}
	for _, name := range backedUp() {
		described, err := describe(ctx, restored, name, everything)
		if err != nil {
			return err
		}
		m.Streams = append(m.Streams, described)
	}
	m.LateKeys, err = lateKeys(ctx, restored, keysBefore)
	return err
}

// serve runs a server of our own on a store; stop ends it.
func serve(store string, keys natsconn.Keys, log *slog.Logger) (*connection, func(), error) {
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: store, Keys: keys, Log: log})
	if err != nil {
		return nil, nil, err
	}
	nc, err := natsconn.Connect(natsconn.Config{
		Server: server, SeedFile: keys.SeedFile(natsconn.RolePlatform), Name: "backup", Log: log,
	})
	if err != nil {
		server.Stop()
		return nil, nil, err
	}
	return nc, func() { nc.Close(); server.Stop() }, nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
