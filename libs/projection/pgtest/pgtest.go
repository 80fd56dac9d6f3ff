// Package pgtest runs a private PostgreSQL for the tests of one binary: in a
// temporary directory, on a Unix socket alone, as an unprivileged user. A test that
// lacks PostgreSQL fails and names the package to install.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	startTimeout = 30 * time.Second
	pollEvery    = 10 * time.Millisecond
	superuser    = "postgres"
)

// Cluster is a PostgreSQL server. Make one in TestMain with Start, and Stop it.
type Cluster struct {
	bin, dir  string
	user      *syscall.Credential // nil for our own
	server    *exec.Cmd
	exited    chan error
	databases atomic.Int64
}

// Start makes and starts a cluster.
func Start() (*Cluster, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, fmt.Errorf("make a directory for PostgreSQL: %w", err)
	}
	c := &Cluster{bin: bin, dir: dir}
	if err := c.begin(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, nil
}

func (c *Cluster) begin() error {
	if os.Geteuid() == 0 {
		if err := c.unprivileged(); err != nil {
			return err
		}
	}
	initdb := c.command("initdb", "--pgdata", c.data(), "--username", superuser, "--auth", "trust", "--encoding", "UTF8", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return c.Up()
}

// binaries finds the newest of Debian's.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", errors.New("PostgreSQL is missing: install the Debian package postgresql")
	}
	newest, best := "", 0
	for _, path := range found {
		bin := filepath.Dir(path)
		if version, err := strconv.Atoi(filepath.Base(filepath.Dir(bin))); err == nil && version > best {
			newest, best = bin, version
		}
	}
	if newest == "" {
		return "", fmt.Errorf("PostgreSQL is missing: none of %v has a version", found)
	}
	return newest, nil
}

// unprivileged is needed because PostgreSQL refuses to run as root.
func (c *Cluster) unprivileged() error {
	u, err := user.Lookup(superuser)
	if err != nil {
		return fmt.Errorf("the user that Debian's package postgresql makes: %w", err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return fmt.Errorf("the user %s: %w", superuser, err)
	}
	c.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if err := os.Chown(c.dir, int(uid), int(gid)); err != nil {
		return fmt.Errorf("give PostgreSQL its directory: %w", err)
	}
	return nil
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	// A test binary that is killed takes its server with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// Up starts the server again after Down, and waits until it answers.
func (c *Cluster) Up() error {
	server := c.command("postgres", "-D", c.data(), "-k", c.dir, "-c", "listen_addresses=", "-c", "fsync=off",
		"-c", "max_connections=200", "-c", "shared_buffers=16MB")
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer log.Close()
	server.Stdout, server.Stderr = log, log
	started, exited := make(chan error, 1), make(chan error, 1)
	go func() {
		// The kernel takes the death of the thread that started the server for ours.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := server.Start()
		started <- err
		if err == nil {
			exited <- server.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	c.server, c.exited = server, exited
	return c.waitReady()
}

func (c *Cluster) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, c.url(superuser))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case exit := <-c.exited:
			log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			return fmt.Errorf("PostgreSQL ended (%w): %s", exit, log)
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL did not answer within %s: %w", startTimeout, err)
		case <-time.After(pollEvery):
		}
	}
}

// Down stops the server at once, as a crash would, and waits for it.
func (c *Cluster) Down() error {
	if err := c.server.Process.Signal(syscall.SIGQUIT); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	<-c.exited
	return nil
}

// Stop stops the server and removes all that it has left.
func (c *Cluster) Stop() error {
	return errors.Join(c.Down(), os.RemoveAll(c.dir))
}

// Database makes an empty database and returns a pool for it, which is closed when
// the test ends.
func (c *Cluster) Database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	name := fmt.Sprintf("test%d", c.databases.Add(1))
	admin, err := pgx.Connect(t.Context(), c.url(superuser))
	if err != nil {
		t.Fatalf("connect to PostgreSQL: %v", err)
	}
	_, err = admin.Exec(t.Context(), "CREATE DATABASE "+name)
	if err = errors.Join(err, admin.Close(t.Context())); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	pool, err := pgxpool.New(t.Context(), c.url(name)+" pool_max_conns=8")
	if err != nil {
		t.Fatalf("connect to PostgreSQL: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func (c *Cluster) url(database string) string {
	return fmt.Sprintf("host=%s user=%s dbname=%s", c.dir, superuser, database)
}
