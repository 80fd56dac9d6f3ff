// Package lock keeps a data directory to one daemon at a time.
package lock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const name = "lock"

// Lock is held until Release or the end of the process, however it ends.
type Lock struct{ file *os.File }

// Acquire takes the directory's lock. When another process has it, the error says
// which one.
func Acquire(dir string) (*Lock, error) {
	path := filepath.Join(dir, name)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // only to say more in the error
		err = errors.Join(err, file.Close())
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another slipwayd (process %s) uses the data directory %s: stop it, or give this one its own --data-dir", strings.TrimSpace(string(holder)), dir)
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
