package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const lockFile = "lock"

// ErrInUse is returned by Acquire when another process has the directory.
var ErrInUse = errors.New("the data directory is in use")

// Lock is held until Release or the end of the process, however it ends.
type Lock struct{ file *os.File }

// Acquire takes the directory's lock. When another process has it, the error is
// ErrInUse and says which one. It is an error too when a restore into the directory
// was not finished.
func Acquire(dir string) (*Lock, error) {
	switch _, err := os.Stat(filepath.Join(dir, Restoring)); {
	case err == nil:
		return nil, fmt.Errorf("a restore into %s was not finished: remove that directory and restore again", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	return acquire(dir)
}

func acquire(dir string) (*Lock, error) {
	path := filepath.Join(dir, lockFile)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // only to say more in the error
		err = errors.Join(err, file.Close())
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &inUse{holder: strings.TrimSpace(string(holder)), dir: dir}
		}
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := errors.Join(file.Truncate(0), write(file)); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), file.Close())
	}
	return &Lock{file: file}, nil
}

// Release lets the next one have the directory.
func (l *Lock) Release() error { return l.file.Close() }

func write(file *os.File) error {
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

type inUse struct{ holder, dir string }

func (e *inUse) Error() string {
	return fmt.Sprintf("another slipwayd (process %s) uses the data directory %s: stop it, or give this one its own --data-dir", e.holder, e.dir)
}

func (e *inUse) Is(target error) bool { return target == ErrInUse }
