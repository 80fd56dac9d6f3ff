package certstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// keptFor is how long a copy stays that nobody wrote again: longer than any certificate
// goes without being renewed.
const keptFor = 120 * 24 * time.Hour

// local are the copies on this disk, sealed as they are in NATS. A file is named by a
// hash: paths may be longer than names of files.
type local struct{ dir string }

// kept reports whether there is a copy of the path: of what serving needs.
func kept(path string) bool { return strings.HasPrefix(path, "certificates/") }

// openLocal makes the directory and takes away what was left behind long ago.
func openLocal(dir string) (local, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return local{}, fmt.Errorf("make the directory of certificates: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return local{}, fmt.Errorf("read the directory of certificates: %w", err)
	}
	for _, file := range files {
		info, err := file.Info()
		if err == nil && time.Since(info.ModTime()) > keptFor {
			err = os.Remove(filepath.Join(dir, file.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return local{}, fmt.Errorf("tidy the directory of certificates: %w", err)
		}
	}
	return local{dir: dir}, nil
}

func (l local) file(path string) string {
	name := sha256.Sum256([]byte(path))
	return filepath.Join(l.dir, hex.EncodeToString(name[:]))
}

func (l local) load(path string) (sealed []byte, modified time.Time, err error) {
	name := l.file(path)
	info, err := os.Stat(name)
	if err != nil {
		return nil, time.Time{}, err
	}
	sealed, err = os.ReadFile(name)
	return sealed, info.ModTime(), err
}

// store replaces the copy whole; the same again is not written.
func (l local) store(path string, sealed []byte) error {
	name := l.file(path)
	if had, err := os.ReadFile(name); err == nil && bytes.Equal(had, sealed) {
		return nil
	}
	file, err := os.CreateTemp(l.dir, ".new-*") // is 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // is gone when it was renamed
	_, err = file.Write(sealed)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}

// keep makes a copy of what NATS has. That it cannot be made takes away nothing now.
func (s *Storage) keep(path string, sealed []byte) {
	if !kept(path) {
		return
	}
	if err := s.local.store(path, sealed); err != nil {
		s.cfg.Log.Warn("a certificate is not on disk for when NATS is away", "path", path, "error", err)
	}
}

func (s *Storage) forget(path string) {
	if !kept(path) {
		return
	}
	if err := os.Remove(s.local.file(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Log.Warn("a certificate that is gone stays on disk", "path", path, "error", err)
	}
}
