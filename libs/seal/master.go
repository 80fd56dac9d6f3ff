package seal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/tink"
)

const masterSize = 32

// Master reads the master key from a file of 32 bytes that only its owner may read,
// and makes it when there is none. Without that file nothing that was sealed with
// it can ever be read: back it up, apart from the log.
func Master(path string) (tink.AEAD, error) {
	key, err := readMaster(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeMaster(path); err == nil {
			key, err = readMaster(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	master, err := subtle.NewAESGCM(key)
	if err != nil {
		return nil, fmt.Errorf("master key %s: %w", path, err)
	}
	return master, nil
}

func readMaster(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others (%v): make it 0600", path, mode)
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(key) != masterSize {
		return nil, fmt.Errorf("%s has %d bytes, not %d", path, len(key), masterSize)
	}
	return key, nil
}

// makeMaster lets the file appear whole, and only when there is none: of several
// processes that start together all use the same key.
func makeMaster(path string) error {
	key := make([]byte, masterSize)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("draw a key: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // is 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(key)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temporary.Name(), err)
	}
	if err := os.Link(temporary.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
