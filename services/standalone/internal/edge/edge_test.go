package edge_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/standalone/internal/edge"
)

// TestMain is also two programs that the tests run: the edge, which serves /ready on
// the address after its last flag, --metrics; and a daemon to be killed.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "--fake-edge":
		http.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {})
		if err := http.ListenAndServe(os.Args[len(os.Args)-1], nil); err != nil {
			os.Exit(1)
		}
	case len(os.Args) > 1 && os.Args[1] == "--fake-daemon":
		e, err := edge.New(config(os.Args[2], os.Args[3]))
		if err != nil || e.Run(context.Background()) != nil {
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func config(dir, version string, args ...string) edge.Config {
	return edge.Config{
		Program: "/proc/self/exe", Args: append([]string{"--fake-edge"}, args...), Version: version,
		Dir: dir, Log: slog.New(slog.DiscardHandler),
	}
}

// leave starts a daemon with an edge and kills it.
func leave(t *testing.T, dir, version string) {
	t.Helper()
	command := exec.Command("/proc/self/exe", "--fake-daemon", dir, version)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the edge is started", func() bool { return edge.Running(dir) })
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait() // it was killed
	if !edge.Running(dir) {
		t.Fatal("the edge ended with its daemon")
	}
}

type daemon struct {
	t    *testing.T
	edge *edge.Edge
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, dir, version string, args ...string) *daemon {
	t.Helper()
	e, err := edge.New(config(dir, version, args...))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &daemon{t: t, edge: e, stop: cancel, done: make(chan error, 1)}
	go func() { d.done <- e.Run(ctx) }()
	until(t, "the edge is ready", func() bool { return e.Ready() == nil })
	return d
}

func (d *daemon) end() {
	d.t.Helper()
	d.stop()
	if err := <-d.done; err != nil {
		d.t.Errorf("stop: %v", err)
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

func note(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "edge.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheEdgeStartsServesAndStopsWithTheDaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := start(t, dir, "v1")
	if !edge.Running(dir) {
		t.Error("the edge is not known to run")
	}
	d.end()
	if edge.Running(dir) || d.edge.Ready() == nil {
		t.Error("the edge is still there")
	}
}

func TestAnEdgeThatAKilledDaemonLeftIsGoneOnWith(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	leave(t, dir, "v1")
	before := note(t, dir)
	next := start(t, dir, "v1")
	if note(t, dir) != before {
		t.Error("the edge was started again")
	}
	next.end()
	if edge.Running(dir) {
		t.Error("the edge outlived a clean stop")
	}
}

func TestAnEdgeOfAnotherBuildOrWithOtherFlagsIsReplaced(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"v2": nil, "v1": {"--other"}} {
		dir := t.TempDir()
		leave(t, dir, "v1")
		old := note(t, dir)
		next := start(t, dir, name, args...)
		if note(t, dir) == old {
			t.Errorf("the old edge still serves, instead of %s %v", name, args)
		}
		next.end()
	}
}

func TestAMissingProgramIsNamed(t *testing.T) {
	t.Parallel()
	if _, err := edge.New(edge.Config{Program: "/nowhere/slipway-edge", Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("accepted")
	}
}
