// Package postgres runs a private PostgreSQL cluster as a child process: made when
// first started, reached by a unix socket only, durable, and as small as fits a
// platform of one machine.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"github.com/slipway-paas/slipway/services/standalone/internal/process"
)

const (
	superuser = "slipway"
	database  = "slipway"

	startTimeout = 60 * time.Second
	stopPatience = 20 * time.Second
)

// Config says where the cluster is.
type Config struct {
	// Dir holds the cluster's data and socket; made when it is not there.
	Dir string
	Log *slog.Logger
}

// Cluster is a running PostgreSQL.
type Cluster struct {
	log      *slog.Logger
	as       account
	programs string
	data     string
	sockets  string
	child    *child
	up       atomic.Bool
}

// Start starts the cluster, making it first if need be, and returns when it takes
// connections. A server that a killed daemon left behind is stopped before. Errors:
// ErrMissing, or what PostgreSQL said.
func Start(ctx context.Context, c Config) (*Cluster, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("find the database directory: %w", err)
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	cluster := &Cluster{log: c.Log.With("part", "postgres"), as: as, data: filepath.Join(dir, "data"), sockets: socketDir(dir)}
	if cluster.programs, err = programs(cluster.data); err != nil {
		return nil, err
	}
	for _, d := range []string{dir, cluster.sockets} {
		if err := as.own(d); err != nil {
			return nil, fmt.Errorf("make the database directory: %w", err)
		}
	}
	if err := cluster.removeStale(ctx); err != nil {
		return nil, err
	}
	if err := cluster.initialize(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := cluster.launch(ctx); err != nil {
		return nil, err
	}
	if err := cluster.createDatabase(ctx); err != nil {
		return nil, errors.Join(err, cluster.stop())
	}
	return cluster, nil
}

// URL is what to connect to.
func (c *Cluster) URL() string { return c.url(database) }

func (c *Cluster) url(db string) string {
	query := url.Values{"host": {c.sockets}, "user": {superuser}}
	return "postgres:///" + db + "?" + query.Encode()
}

// Ready says whether the server runs.
func (c *Cluster) Ready() error {
	if !c.up.Load() {
		return errors.New("the private PostgreSQL is not running")
	}
	return nil
}

// Run keeps the server running, starting it again when it ends, until ctx ends;
// then it stops it cleanly.
func (c *Cluster) Run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 10*time.Second
	for {
		select {
		case <-ctx.Done():
			return c.stop()
		case <-c.child.ended:
		}
		c.up.Store(false)
		c.log.Error("PostgreSQL ended, starting it again", "error", c.child.reason())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause.NextBackOff()):
		}
		bounded, cancel := context.WithTimeout(ctx, startTimeout)
		err := errors.Join(c.removeStale(bounded), c.launch(bounded))
		cancel()
		if err != nil {
			c.log.Error("PostgreSQL did not start", "error", err)
		} else {
			pause.Reset()
		}
	}
}

// Stop stops the server, of a cluster that Run was never called for too.
func (c *Cluster) Stop() error { return c.stop() }

// StopLeft stops a server that a killed daemon left in dir, if there is one.
func StopLeft(ctx context.Context, dir string, log *slog.Logger) error {
	c := &Cluster{log: log, data: filepath.Join(dir, "data")}
	if err := c.removeStale(ctx); err != nil {
		return err
	}
	// It may be outside of our directory.
	_ = os.RemoveAll(socketDir(dir))
	return nil
}

// stop asks for a fast shutdown: open transactions are rolled back.
func (c *Cluster) stop() error {
	c.up.Store(false)
	if err := c.child.stop(stopPatience, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	// Made again at the next start; it may be outside of our directory.
	_ = os.Remove(c.sockets)
	return nil
}

// initialize makes the cluster so that a crash leaves a whole one or none.
func (c *Cluster) initialize(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(c.data, "PG_VERSION")); err == nil {
		return nil
	}
	fresh := c.data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove a half-made database: %w", err)
	}
	c.log.Info("making the database", "directory", c.data)
	command := exec.CommandContext(ctx, filepath.Join(c.programs, "initdb"),
		"--pgdata", fresh, "--username", superuser, "--encoding", "UTF8", "--locale", "C", "--no-instructions",
		// The socket's directory lets in nobody but the server's user and root.
		"--auth", "trust")
	command.SysProcAttr = c.as.attributes(c.data)
	command.Dir = "/"
	command.Env = environment()
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("make the database with initdb: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(fresh, c.data); err != nil {
		return fmt.Errorf("put the new database in its place: %w", err)
	}
	return nil
}

// launch starts the server and waits until it takes connections.
func (c *Cluster) launch(ctx context.Context) error {
	started, err := start(c.log, c.as.attributes(c.data), filepath.Join(c.programs, "postgres"), settings(c.data, c.sockets)...)
	if err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	c.child = started
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, c.url("postgres"))
		if err == nil {
			c.up.Store(true)
			return conn.Close(ctx)
		}
		select {
		case <-c.child.ended:
			return fmt.Errorf("start PostgreSQL: %w", c.child.reason())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("start PostgreSQL: it takes no connections: %w", err), c.stop())
		case <-tick.C:
		}
	}
}

func (c *Cluster) createDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.url("postgres"))
	if err != nil {
		return fmt.Errorf("connect to the new database: %w", err)
	}
	defer conn.Close(ctx)
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&there); err != nil {
		return fmt.Errorf("look for the database: %w", err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{database}.Sanitize()); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	return nil
}

// removeStale stops a server that still holds the data, and forgets one whose
// process number now belongs to somebody else.
func (c *Cluster) removeStale(ctx context.Context) error {
	path := filepath.Join(c.data, "postmaster.pid")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c.removeStaleSockets()
	}
	if err != nil {
		return fmt.Errorf("look for a running PostgreSQL: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return fmt.Errorf("look for a running PostgreSQL: %s: %w", path, err)
	}
	if id, err := process.Of(pid); err == nil && id.Command() == "postgres" && id.Cwd() == c.data {
		c.log.Warn("stopping the PostgreSQL that an earlier daemon left", "pid", pid)
		return id.Stop(ctx, stopPatience, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the note of a PostgreSQL that is gone: %w", err)
	}
	return c.removeStaleSockets()
}

// removeStaleSockets takes away the sockets, and the locks on them, of a server that
// is known not to run. A new one would not: the pid in a lock may be a dead process
// that nobody has reaped, or somebody else's by now.
func (c *Cluster) removeStaleSockets() error {
	if c.sockets == "" {
		return nil
	}
	left, err := filepath.Glob(filepath.Join(c.sockets, ".s.PGSQL.*"))
	if err != nil {
		return fmt.Errorf("look for sockets of a PostgreSQL that is gone: %w", err)
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a socket of a PostgreSQL that is gone: %w", err)
		}
	}
	return nil
}
