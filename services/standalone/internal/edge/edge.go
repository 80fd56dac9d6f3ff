// Package edge keeps slipway-edge running as a child process. The edge outlives a
// daemon that is killed: the next daemon finds it and goes on with it, so that apps
// are served all the while, or replaces it when it is of another build or told
// otherwise.
package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/slipway-paas/slipway/services/standalone/internal/process"
)

const (
	stopPatience = 12 * time.Second
	readyPause   = 100 * time.Millisecond
	readyTimeout = 15 * time.Second
	// stableAfter is how long an edge must have run for its end to count as the first.
	stableAfter = time.Minute
	// largestLog is when the edge's log is begun anew.
	largestLog = 16 << 20
)

// Config says what to run.
type Config struct {
	// Program is the path of slipway-edge.
	Program string
	// Args are its flags, without --metrics. An edge that runs with others is replaced.
	Args []string
	// Version is the build's: an edge of another one is replaced.
	Version string
	// Dir holds the note of what runs, and the edge's log.
	Dir string
	Log *slog.Logger
}

// Edge is the child.
type Edge struct {
	config Config
	log    *slog.Logger
	http   *http.Client
	ready  atomic.Bool
	// metrics is the loopback address where this run of the edge says how it is.
	metrics string
}

// New checks that the program is there.
func New(c Config) (*Edge, error) {
	if _, err := exec.LookPath(c.Program); err != nil {
		return nil, fmt.Errorf("the edge's program is missing: run make build: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the edge's directory: %w", err)
	}
	return &Edge{config: c, log: c.Log.With("part", "edge"), http: &http.Client{Timeout: 2 * time.Second}}, nil
}

// Ready says whether the edge serves.
func (e *Edge) Ready() error {
	if !e.ready.Load() {
		return errors.New("the edge is not serving")
	}
	return nil
}

// Run keeps one edge running until ctx ends, then stops it.
func (e *Edge) Run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 15*time.Second
	for {
		begun := time.Now()
		err := e.once(ctx)
		e.ready.Store(false)
		if ctx.Err() != nil {
			return err
		}
		if time.Since(begun) > stableAfter {
			pause.Reset()
		}
		e.log.Error("the edge ended, starting it again", "error", err, "log", e.logPath())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// once adopts or starts an edge and stays with it to its end.
func (e *Edge) once(ctx context.Context) error {
	id, adopted, err := e.adopt(ctx)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	if adopted {
		e.log.Info("going on with the edge that runs", "pid", id.PID)
		go func() { ended <- id.Wait(context.WithoutCancel(ctx)) }()
	} else {
		if e.metrics, err = freeAddress(ctx); err != nil {
			return err
		}
		command, err := e.start()
		if err != nil {
			return err
		}
		if id, err = process.Of(command.Process.Pid); err != nil {
			return errors.Join(err, command.Process.Kill(), command.Wait())
		}
		go func() { ended <- command.Wait() }()
		if err := e.note(id); err != nil {
			return errors.Join(err, id.Stop(context.WithoutCancel(ctx), stopPatience, syscall.SIGTERM, syscall.SIGKILL), <-ended)
		}
	}
	if err := e.stay(ctx, ended); err != nil || ctx.Err() == nil {
		return err
	}
	e.ready.Store(false)
	err = id.Stop(context.WithoutCancel(ctx), stopPatience, syscall.SIGTERM, syscall.SIGKILL)
	<-ended // how it ended, when asked to, does not matter
	return errors.Join(err, e.forget())
}

// stay follows whether the edge is ready until it or ctx ends.
func (e *Edge) stay(ctx context.Context, ended <-chan error) error {
	tick := time.NewTicker(readyPause)
	defer tick.Stop()
	for {
		if now := e.answers(ctx); now != e.ready.Load() && ctx.Err() == nil {
			e.ready.Store(now)
			if now {
				tick.Reset(10 * readyPause)
			} else {
				tick.Reset(readyPause)
			}
		}
		select {
		case err := <-ended:
			if err == nil {
				return errors.New("it ended by itself")
			}
			return err
		case <-ctx.Done():
			return nil
		case <-tick.C:
			e.boundLog()
		}
	}
}

// boundLog begins the log anew when it is too long; the edge appends, so that goes
// on at the start.
func (e *Edge) boundLog() {
	if info, err := os.Stat(e.logPath()); err != nil || info.Size() <= largestLog {
		return
	}
	if err := os.Truncate(e.logPath(), 0); err != nil {
		e.log.Warn("the edge's log cannot be shortened", "error", err)
	}
}

func (e *Edge) answers(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.metrics+"/ready", nil)
	if err != nil {
		return false
	}
	res, err := e.http.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// start starts the program in a session of its own, away from our terminal's
// signals, with its log in a file that does not end with us.
func (e *Edge) start() (*exec.Cmd, error) {
	log, err := os.OpenFile(e.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the edge's log: %w", err)
	}
	defer log.Close()
	command := exec.Command(e.config.Program, append(slices.Clone(e.config.Args), "--metrics", e.metrics)...)
	command.Stdout, command.Stderr = log, log
	command.Env = environment(os.Environ())
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the edge: %w", err)
	}
	return command, nil
}

// answersSoon gives an edge that has just been started time to get ready.
func (e *Edge) answersSoon(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(readyPause)
	defer tick.Stop()
	for !e.answers(ctx) {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

func (e *Edge) logPath() string { return filepath.Join(e.config.Dir, "edge.log") }
