package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/datadir"
	"github.com/slipway-paas/slipway/libs/natsconn"
)

// ErrNotEmpty: the data directory that is to be restored into holds something.
var ErrNotEmpty = errors.New("the data directory is not empty")

// RestoreOptions say how to restore.
type RestoreOptions struct {
	// Passphrase opens an encrypted file.
	Passphrase string
	// To restores the streams into NATS servers of the operator's own; the zero value
	// into the data directory, for the embedded one.
	To At
	// Replicas is how many of those servers keep each stream; 0 means 1.
	Replicas int
	// Begin hears of each long part of the work when it begins; nil for nobody.
	Begin func(part string)
	Log   *slog.Logger
}

// Restore brings a platform back into a data directory that is empty or not there,
// proves that its streams are those that were backed up, and returns what it
// restored. Nothing is in its place before all of it is proved. Errors: ErrNotEmpty,
// datadir.ErrInUse, ErrPassphrase, ErrDamaged, ErrDifferent.
func Restore(ctx context.Context, path, dir string, o RestoreOptions) (Manifest, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Manifest{}, fmt.Errorf("the data directory: %w", err)
	}
	// Others may pass through, to the database's directory.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return Manifest{}, fmt.Errorf("make the data directory: %w", err)
	}
	if err := checkEmpty(dir); err != nil {
		return Manifest{}, err
	}
	held, err := datadir.Acquire(dir)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = held.Release() }() // the process's end does it too
	prepared := filepath.Join(dir, datadir.Restoring)
	if err := os.Mkdir(prepared, 0o700); err != nil {
		return Manifest{}, fmt.Errorf("prepare the data directory: %w", err)
	}
	r := restoring{dir: datadir.Dir(prepared), options: o}
	if err := r.prepare(ctx, path, dir); err != nil {
		return Manifest{}, errors.Join(err, os.RemoveAll(prepared))
	}
	// When this fails what is prepared stays, and so the directory is nobody's.
	return r.manifest, moveUp(prepared, dir)
}

// checkEmpty refuses a directory with anything in it but what a lock, or a file
// system of its own, leaves.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look at the data directory: %w", err)
	}
	for _, entry := range entries {
		switch entry.Name() {
		case "lock", "lost+found":
			continue
		}
		held, err := datadir.Acquire(dir)
		if err != nil {
			return err // in use, or half restored
		}
		return errors.Join(fmt.Errorf("%s: %w: restore into a new one, or remove it with slipwayd purge --data-dir", dir, ErrNotEmpty), held.Release())
	}
	return nil
}

// restoring is one restore under way, in a directory of its own.
type restoring struct {
	dir      datadir.Dir
	options  RestoreOptions
	manifest Manifest
}

func (r *restoring) streams() string { return filepath.Join(string(r.dir), "streams") }

func (r *restoring) prepare(ctx context.Context, path, final string) error {
	begin := told(r.options.Begin)
	begin("reading " + path)
	if err := read(ctx, path, r.options.Passphrase, r.extract); err != nil {
		return err
	}
	if r.manifest.Format != format {
		return fmt.Errorf("%w: format %d is not known to this program, which knows %d; the backup was made by version %q",
			ErrDamaged, r.manifest.Format, format, r.manifest.Version)
	}
	if err := r.keepSettings(final); err != nil {
		return err
	}
	begin("restoring the log and the keys, and holding them against what was backed up")
	if err := r.restoreStreams(ctx); err != nil {
		return err
	}
	return os.RemoveAll(r.streams())
}

// extract writes one entry of the archive.
func (r *restoring) extract(name string, content io.Reader) error {
	if name == nameManifest {
		if err := json.NewDecoder(io.LimitReader(content, maxNotes)).Decode(&r.manifest); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return nil
	}
	path := filepath.Join(string(r.dir), filepath.FromSlash(name))
	directories, files := fs.FileMode(0o700), fs.FileMode(0o600)
	if strings.HasPrefix(name, "registry/") {
		directories, files = 0o755, 0o644 // as the registry makes them
	}
	if err := os.MkdirAll(filepath.Dir(path), directories); err != nil {
		return fmt.Errorf("restore %s: %w", name, err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, files)
	if err != nil {
		return fmt.Errorf("restore %s: %w", name, err)
	}
	_, err = io.Copy(file, content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("restore %s: %w", name, err)
	}
	return nil
}

// keepSettings leaves the settings of the platform that was, with the directory that
// it has now, for the operator to start with.
func (r *restoring) keepSettings(final string) error {
	text, err := os.ReadFile(r.dir.Settings())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore the settings: %w", err)
	}
	settings, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		return fmt.Errorf("%w: the settings: %w", ErrDamaged, err)
	}
	settings["data-dir"] = final
	if text, err = yaml.Parser().Marshal(settings); err != nil {
		return fmt.Errorf("restore the settings: %w", err)
	}
	if err := os.WriteFile(r.dir.Restored(), text, 0o600); err != nil {
		return fmt.Errorf("restore the settings: %w", err)
	}
	return os.Remove(r.dir.Settings()) // the daemon writes its own
}

func (r *restoring) restoreStreams(ctx context.Context) error {
	nc, stop, err := r.server()
	if err != nil {
		return err
	}
	defer stop()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	for _, want := range r.manifest.Streams {
		if err := restoreStream(ctx, nc, want.Name, filepath.Join(r.streams(), want.Name), max(1, r.options.Replicas)); err != nil {
			return err
		}
		got, err := describe(ctx, js, want.Name, everything)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%w: %+v was restored, %+v was backed up", ErrDifferent, got, want)
		}
	}
	return putKeys(ctx, js, r.manifest.LateKeys)
}

// server is where the streams go.
func (r *restoring) server() (*connection, func(), error) {
	keys, err := natsconn.EnsureKeys(r.dir.NATSKeys())
	if err != nil {
		return nil, nil, err
	}
	to := r.options.To
	if to.NATS == "" {
		return serve(r.dir.NATSStore(), keys, r.options.Log)
	}
	if to.Key == "" {
		to.Key = keys.SeedFile(natsconn.RolePlatform)
	}
	nc, err := natsconn.Connect(natsconn.Config{URL: to.NATS, SeedFile: to.Key, Name: "restore", Log: r.options.Log})
	if err != nil {
		return nil, nil, err
	}
	return nc, nc.Close, nil
}

// moveUp puts what was prepared into its place. Until its last step the directory is
// nobody's.
func moveUp(prepared, dir string) error {
	entries, err := os.ReadDir(prepared)
	if err != nil {
		return fmt.Errorf("put the data into its place: %w", err)
	}
	for _, entry := range entries {
		if err := os.Rename(filepath.Join(prepared, entry.Name()), filepath.Join(dir, entry.Name())); err != nil {
			return fmt.Errorf("put the data into its place: %w", err)
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := os.Remove(prepared); err != nil {
		return fmt.Errorf("put the data into its place: %w", err)
	}
	return syncDir(dir)
}
