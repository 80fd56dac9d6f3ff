package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// account is whom the server runs as: PostgreSQL refuses to run as root.
type account struct {
	uid, gid uint32
	other    bool // not the user we are
}

// unprivileged is ourselves, or when we are root the user postgres, else nobody.
func unprivileged() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err, err2); err != nil {
			return account{}, fmt.Errorf("user %s: %w", name, err)
		}
		return account{uid: uint32(uid), gid: uint32(gid), other: true}, nil
	}
	return account{}, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

// attributes are how a child is started as that account: in a process group of its
// own, so that Ctrl-C reaches only us, and stopped by the kernel should we die.
func (a account) attributes(dir string) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	if !a.other {
		return attr
	}
	attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	if !a.reaches(dir) {
		// E.g. below /root: the server may pass closed directories on its way, and
		// what it may read does not widen what it serves.
		attr.AmbientCaps = []uintptr{unix.CAP_DAC_READ_SEARCH}
	}
	return attr
}

// reaches reports whether the account may pass every directory on the way to dir.
func (a account) reaches(dir string) bool {
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return false
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return false
		}
		mode := info.Mode().Perm()
		switch {
		case stat.Uid == a.uid:
			mode >>= 6
		case stat.Gid == a.gid:
			mode >>= 3
		}
		if mode&1 == 0 {
			return false
		}
		if parent == "/" || parent == "." {
			return true
		}
	}
}

// own makes dir, for the account alone.
func (a account) own(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return &fs.PathError{Op: "use", Path: dir, Err: errors.New("not a directory")}
	}
	if stat.Uid != a.uid && stat.Uid != uint32(os.Geteuid()) {
		return &fs.PathError{Op: "use", Path: dir, Err: fmt.Errorf("it belongs to user %d", stat.Uid)}
	}
	if a.other {
		if err := os.Lchown(dir, int(a.uid), int(a.gid)); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o700)
}
