package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/slipway-paas/slipway/services/standalone/internal/process"
)

// note is what is written down of the edge that runs.
type note struct {
	Process process.ID `json:"process"`
	Program string     `json:"program"`
	Version string     `json:"version"`
	Args    []string   `json:"args"`
	Metrics string     `json:"metrics"`
}

// adopt returns the edge that an earlier daemon left, when it is the one we would
// start and it answers; any other one that was left is stopped.
func (e *Edge) adopt(ctx context.Context) (process.ID, bool, error) {
	n, err := readNote(e.config.Dir)
	if err != nil || !n.Process.Alive() {
		return process.ID{}, false, err
	}
	e.metrics = n.Metrics
	if n.Version == e.config.Version && n.Program == e.config.Program && slices.Equal(n.Args, e.config.Args) && e.answersSoon(ctx) {
		return n.Process, true, nil
	}
	e.log.Info("replacing the edge that runs", "pid", n.Process.PID, "version", n.Version)
	return process.ID{}, false, n.Process.Stop(ctx, stopPatience, syscall.SIGTERM, syscall.SIGKILL)
}

// Running reports whether an edge that an earlier daemon left still runs, and so
// holds the edge's addresses.
func Running(dir string) bool {
	n, err := readNote(dir)
	return err == nil && n.Process.Alive()
}

func readNote(dir string) (note, error) {
	path := notePath(dir)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return note{}, nil
	}
	if err != nil {
		return note{}, fmt.Errorf("look for a running edge: %w", err)
	}
	var n note
	if err := json.Unmarshal(text, &n); err != nil {
		return note{}, fmt.Errorf("look for a running edge: %s: %w", path, err)
	}
	return n, nil
}

func (e *Edge) note(id process.ID) error {
	text, err := json.Marshal(note{Process: id, Program: e.config.Program, Version: e.config.Version, Args: e.config.Args, Metrics: e.metrics})
	if err != nil {
		return fmt.Errorf("note the edge: %w", err)
	}
	if err := errors.Join(os.WriteFile(notePath(e.config.Dir)+".new", text, 0o600), os.Rename(notePath(e.config.Dir)+".new", notePath(e.config.Dir))); err != nil {
		return fmt.Errorf("note the edge: %w", err)
	}
	return nil
}

func (e *Edge) forget() error {
	if err := os.Remove(notePath(e.config.Dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the edge: %w", err)
	}
	return nil
}

func notePath(dir string) string { return filepath.Join(dir, "edge.json") }

// freeAddress finds a loopback address for one run of the edge.
func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find an address for the edge's metrics: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}

// Stop ends an edge that an earlier daemon left, if there is one.
func Stop(ctx context.Context, dir string) error {
	n, err := readNote(dir)
	if err != nil || !n.Process.Alive() {
		return err
	}
	if err := n.Process.Stop(ctx, stopPatience, syscall.SIGTERM, syscall.SIGKILL); err != nil {
		return fmt.Errorf("stop the edge: %w", err)
	}
	return nil
}
