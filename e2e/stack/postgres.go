package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
)

const (
	postgresName  = "postgres"
	postgresStart = 30 * time.Second
)

// startPostgres starts a private PostgreSQL without TCP, and returns its URL. The
// server refuses to run as root, so it runs as the user that Debian made for it.
func (s *Stack) startPostgres(ctx context.Context) (url string, err error) {
	programs, err := postgresPrograms()
	if err != nil {
		return "", err
	}
	setup, owner, err := unprivileged()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(s.Dir, "postgres")
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the database's directory: %w", err)
	}
	if err := owner(dir); err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		initdb := exec.CommandContext(ctx, filepath.Join(programs, "initdb"),
			"--pgdata", data, "--username", "slipway", "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
		initdb.Dir = dir
		initdb.SysProcAttr = &syscall.SysProcAttr{}
		setup(initdb)
		if out, err := initdb.CombinedOutput(); err != nil {
			return "", fmt.Errorf("make the database: %w\n%s", err, bytes.TrimSpace(out))
		}
	}
	_, err = s.run(command{
		name: postgresName, binary: filepath.Join(programs, "postgres"), dir: dir, setup: setup,
		args: []string{"-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "max_connections=60", "-c", "shared_buffers=32MB"},
	})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, postgresStart)
	defer cancel()
	err = client.Poll(ctx, func(ctx context.Context) (bool, string, error) {
		ready := exec.CommandContext(ctx, filepath.Join(programs, "pg_isready"), "-h", dir, "-U", "slipway", "-d", "postgres")
		out, err := ready.CombinedOutput()
		return err == nil, string(bytes.TrimSpace(out)), nil
	})
	if err != nil {
		return "", fmt.Errorf("PostgreSQL did not get ready: %w\n%s", err, s.Process(postgresName).Tail())
	}
	return "postgres:///postgres?host=" + dir + "&user=slipway", nil
}

// postgresPrograms is the directory of the newest PostgreSQL installed.
func postgresPrograms() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", fmt.Errorf("look for PostgreSQL: %w", err)
	}
	if len(found) > 0 {
		slices.Sort(found)
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", fmt.Errorf("PostgreSQL is missing: install Debian's postgresql: %w", err)
	}
	return filepath.Dir(path), nil
}

// unprivileged returns what makes a command run as, and a file belong to, the
// database's user; neither does anything when we are not root.
func unprivileged() (setup func(*exec.Cmd), own func(string) error, err error) {
	if os.Geteuid() != 0 {
		return func(*exec.Cmd) {}, func(string) error { return nil }, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, nil, fmt.Errorf("find the user that PostgreSQL runs as: %w", err)
	}
	uid, uidErr := strconv.Atoi(account.Uid)
	gid, gidErr := strconv.Atoi(account.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, nil, fmt.Errorf("read the user that PostgreSQL runs as: %w", err)
	}
	setup = func(c *exec.Cmd) {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	own = func(path string) error {
		if err := os.Chown(path, uid, gid); err != nil {
			return fmt.Errorf("give the database its directory: %w", err)
		}
		return nil
	}
	return setup, own, nil
}

// Database starts a private PostgreSQL alone, for those who measure. close ends it
// and removes its data.
func Database(ctx context.Context) (url string, closeIt func() error, err error) {
	dir, err := makeTemporary("")
	if err != nil {
		return "", nil, err
	}
	s := &Stack{Dir: dir, temporary: true, commands: map[string]command{}}
	url, err = s.startPostgres(ctx)
	if err != nil {
		return "", nil, errors.Join(err, s.Close(ctx))
	}
	return url, func() error { return s.Close(ctx) }, nil
}
