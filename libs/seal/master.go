package seal

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

var (
	// ErrHeld is returned by Rotate and Hold while another rotation or a backup is under
	// way.
	ErrHeld = errors.New("a rotation or a backup is under way")
	// ErrGiven is returned by Rotate when the master keys were given and are not in a
	// file, and there is no new one among them.
	ErrGiven = errors.New("the master key is given by the environment, and only who gives it can give a new one")
)

// From says where the master keys are.
type From struct {
	// File holds them and is made when it is not there. Several processes may share it.
	File string
	// Keys, when not empty, are the keys themselves and there is no file: base64 of 32
	// bytes each, the newest first, with commas.
	Keys string
}

// Keyring is the platform's master keys: one, or during a rotation also those before
// it. It follows its file. It may be used concurrently.
type Keyring struct {
	file string // empty when the keys were given

	mu   sync.Mutex
	ring ring
	// seen are keys that the file once had: a data key that was read just before it
	// was rewrapped still opens.
	seen ring
	text []byte // of the file that ring was read from
}

// Master reads the master keys from a file that only its owner may read, and makes it
// with one key when there is none. Without that file nothing that was sealed with it
// can ever be read: back it up, apart from the log.
func Master(path string) (*Keyring, error) {
	k := &Keyring{file: path}
	err := k.read()
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeMaster(path); err == nil {
			err = k.read()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	return k, nil
}

// Given are master keys in base64, the newest first, with commas.
func Given(keys string) (*Keyring, error) {
	r, err := parseRing([]byte(keys))
	if err == nil && len(keys) == masterSize {
		err = errors.New("it is not base64 of 32 bytes")
	}
	if err != nil {
		return nil, fmt.Errorf("the master keys that were given: %w", err)
	}
	return &Keyring{ring: r}, nil
}

// forWrapping are the keys as they are now: what is wrapped with one that is no longer
// in the file would be lost.
func (k *Keyring) forWrapping() (ring, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(); err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	return k.ring, nil
}

// forUnwrapping are all keys that may have wrapped something; also when the file
// cannot be read just now.
func (k *Keyring) forUnwrapping() ring {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.read() // whoever wraps is told
	return k.ring.with(k.seen)
}

// read reads the file; it is small, and its times do not tell safely that it is another.
func (k *Keyring) read() error {
	if k.file == "" {
		return nil
	}
	text, err := os.ReadFile(k.file)
	if err != nil {
		return err
	}
	if k.text != nil && subtle.ConstantTimeCompare(text, k.text) == 1 {
		return nil
	}
	info, err := os.Stat(k.file)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s may be read by others (%v): make it 0600", k.file, mode)
	}
	r, err := parseRing(text)
	if err != nil {
		return fmt.Errorf("%s: %w", k.file, err)
	}
	k.seen, k.ring, k.text = k.ring.with(k.seen), r, text
	return nil
}

// replace writes the file anew, whole.
func (k *Keyring) replace(r ring) error {
	path, err := filepath.EvalSymlinks(k.file)
	if err == nil {
		err = written(path, r, os.Rename)
	}
	if err != nil {
		return fmt.Errorf("write the master keys: %w", err)
	}
	return nil
}

// Hold keeps rotations away until release is called or the process ends, however it
// ends: whoever copies data keys and master keys gets those that belong together.
// Errors: ErrHeld.
func Hold(path string) (release func() error, err error) {
	// The directory is locked, for the file itself is replaced.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("hold the master key: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrHeld
		}
		return nil, errors.Join(fmt.Errorf("hold the master key: %w", err), dir.Close())
	}
	return dir.Close, nil
}

// makeMaster lets the file appear only when there is none: of several processes that
// start together all use the same key.
func makeMaster(path string) error {
	key, err := drawMasterKey()
	if err != nil {
		return err
	}
	if err := written(path, ring{key}, os.Link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// written writes a file beside path and brings it into place with put, so that there
// is never a part of it.
func written(path string, r ring, put func(from, to string) error) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // is 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(r.text())
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temporary.Name(), err)
	}
	if err := put(temporary.Name(), path); err != nil {
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
