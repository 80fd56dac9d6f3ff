package postgres_test

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/slipway-paas/slipway/services/standalone/internal/postgres"
)

func start(t *testing.T, dir string) *postgres.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := postgres.Start(ctx, postgres.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs the cluster until the returned function is called.
func run(t *testing.T, c *postgres.Cluster) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
	}
}

func query(ctx context.Context, c *postgres.Cluster, sql string, into ...any) error {
	conn, err := pgx.Connect(ctx, c.URL())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if len(into) == 0 {
		_, err = conn.Exec(ctx, sql)
		return err
	}
	return conn.QueryRow(ctx, sql).Scan(into...)
}

func serverPID(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestRowsOutliveRestartsAndCrashes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "postgres")

	first := start(t, dir)
	stop := run(t, first)
	if err := query(t.Context(), first, "CREATE TABLE kept AS SELECT 7 AS n"); err != nil {
		t.Fatal(err)
	}
	var fsync, tcp string
	if err := query(t.Context(), first, "SELECT current_setting('fsync'), current_setting('listen_addresses')", &fsync, &tcp); err != nil || fsync != "on" || tcp != "" {
		t.Errorf("fsync %q, listens on %q, %v", fsync, tcp, err)
	}
	stop()
	if first.Ready() == nil {
		t.Error("a stopped cluster says that it is ready")
	}

	second := start(t, dir)
	defer run(t, second)()
	old := serverPID(t, dir)
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var n int
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); n == 0; <-tick.C {
		if err := query(t.Context(), second, "SELECT n FROM kept", &n); err != nil && time.Now().After(deadline) {
			t.Fatalf("the killed server did not come back: %v", err)
		}
	}
	if serverPID(t, dir) == old || n != 7 {
		t.Errorf("n is %d", n)
	}
}

func TestAServerThatAKilledDaemonLeftIsReplaced(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "postgres")
	left := start(t, dir)
	old := serverPID(t, dir)

	next := start(t, dir)
	defer run(t, next)()
	if now := serverPID(t, dir); now == old {
		t.Error("the server that was left is still there")
	}
	if err := query(t.Context(), next, "SELECT"); err != nil {
		t.Error(err)
	}
	if err := left.Stop(); err != nil {
		t.Error(err)
	}
}

func TestANoteOfAProcessThatIsSomebodyElsesIsForgotten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "postgres")
	c := start(t, dir)
	note := filepath.Join(dir, "data", "postmaster.pid")
	text, err := os.ReadFile(note)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(note, []byte(strconv.Itoa(os.Getpid())+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	// So is the lock on its socket, which the daemon's end left too.
	at, err := url.Parse(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	sockets := at.Query().Get("host")
	if err := os.MkdirAll(sockets, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(sockets, ".s.PGSQL.5432.lock"), []byte(strconv.Itoa(alike(t, dir))+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	again := start(t, dir)
	if err := again.Stop(); err != nil {
		t.Error(err)
	}
}

// alike is a process of the database's user that is not the database.
func alike(t *testing.T, dir string) (pid int) {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		other.SysProcAttr.Credential = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait() // it was killed
	})
	return other.Process.Pid
}

func TestADirectoryBelowAClosedOneWorksToo(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(closed, strings.Repeat("a-long-name-", 8))
	c := start(t, long)
	if err := query(t.Context(), c, "SELECT"); err != nil {
		t.Error(err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
}
