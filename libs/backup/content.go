package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/slipway-paas/slipway/libs/datadir"
)

// file is one that a backup takes from a data directory.
type file struct {
	name string // in the archive and, from the directory, on disk
	// must says that there is no platform without it.
	must bool
}

// files are the single files of a backup: keys, credentials, settings.
func files(dir datadir.Dir, noMaster bool) ([]file, error) {
	all := []file{{"credentials.json", false}, {"settings.yaml", false}}
	if !noMaster {
		all = append(all, file{"master.key", true})
	}
	keys, err := filepath.Glob(filepath.Join(dir.NATSKeys(), "*.nk"))
	if err != nil {
		return nil, fmt.Errorf("look for the NATS keys: %w", err)
	}
	for _, key := range keys {
		all = append(all, file{"nats/keys/" + filepath.Base(key), true})
	}
	return all, nil
}

// writeArchive writes all that a backup holds.
func writeArchive(ctx context.Context, to string, from *Source, streams string, m Manifest, o Options) error {
	w, err := newWriter(ctx, to, o.Passphrase)
	if err != nil {
		return err
	}
	if err := w.addAll(from, streams, m); err != nil {
		return w.abandon(err)
	}
	return w.finish()
}

func (w *writer) addAll(from *Source, streams string, m Manifest) error {
	if err := w.addJSON(nameManifest, m); err != nil {
		return err
	}
	single, err := files(from.dir, from.noMaster)
	if err != nil {
		return err
	}
	for _, f := range single {
		err := w.addFile(f.name, filepath.Join(string(from.dir), f.name))
		if errors.Is(err, fs.ErrNotExist) && !f.must {
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, stream := range m.Streams {
		for _, part := range []string{snapshotMeta, snapshotData} {
			name := path.Join("streams", stream.Name, part)
			if err := w.addFile(name, filepath.Join(streams, stream.Name, part)); err != nil {
				return err
			}
		}
	}
	if !m.Images {
		return nil
	}
	return w.addImages(from.dir)
}

// addImages takes the registry's links before the blobs that they name: what is pushed
// meanwhile may be missing, but no link leads nowhere.
func (w *writer) addImages(dir datadir.Dir) error {
	isBlob := func(name string) bool { return strings.Contains(name, "/v2/blobs/") }
	for _, blobs := range []bool{false, true} {
		err := filepath.WalkDir(dir.Registry(), func(at string, entry fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // went meanwhile, or there is no registry
			case err != nil:
				return err
			case entry.IsDir() && entry.Name() == "_uploads":
				return fs.SkipDir
			case !entry.Type().IsRegular():
				return nil
			}
			name, err := filepath.Rel(string(dir), at)
			if err != nil {
				return err
			}
			name = filepath.ToSlash(name)
			if isBlob(name) != blobs {
				return nil
			}
			err = w.addFile(name, at)
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("take the registry's images: %w", err)
		}
	}
	return nil
}
