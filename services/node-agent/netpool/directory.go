package netpool

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// shareDirectory makes the directory of named namespaces a shared mount onto itself,
// as `ip netns` and Podman do before their first one. Left to them, that mount would
// cover the namespaces that are there already: nobody could join or remove them.
func shareDirectory(path string) (err error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make the directory of network namespaces: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the directory of network namespaces: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	// The lock that `ip netns` takes for the same.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the directory of network namespaces: %w", err)
	}
	share := func() error { return unix.Mount("", path, "none", unix.MS_SHARED|unix.MS_REC, "") }
	err = share()
	if errors.Is(err, unix.EINVAL) { // no mount yet
		if err = unix.Mount(path, path, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = share()
		}
	}
	if err != nil {
		return fmt.Errorf("share the directory of network namespaces: %w", err)
	}
	return nil
}
