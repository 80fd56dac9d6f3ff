package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	linesKept = 20
	longest   = 8 << 10
)

// child is one run of the server.
type child struct {
	process *os.Process
	ended   chan struct{}

	mu   sync.Mutex
	last []string
	err  error
}

// start starts the program and passes on what it prints.
func start(log *slog.Logger, attr *syscall.SysProcAttr, program string, args ...string) (*child, error) {
	command := exec.Command(program, args...)
	command.SysProcAttr = attr
	command.Env = environment()
	command.Dir = "/"
	out, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	c := &child{ended: make(chan struct{})}
	begun := make(chan error)
	go func() {
		// The signal at our death comes when this thread ends, so it must live as
		// long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := command.Start(); err != nil {
			begun <- err
			return
		}
		c.process = command.Process
		begun <- nil
		c.read(log, out)
		err := command.Wait()
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		close(c.ended)
	}()
	if err := <-begun; err != nil {
		return nil, err
	}
	return c, nil
}

// read logs each line and keeps the last ones, to tell why the server ended.
func (c *child) read(log *slog.Logger, out io.Reader) {
	lines := bufio.NewReaderSize(out, longest)
	for {
		line, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		text := string(line)
		c.mu.Lock()
		c.last = append(c.last, text)
		c.last = c.last[max(0, len(c.last)-linesKept):]
		c.mu.Unlock()
		log.Log(context.Background(), level(text), text)
	}
}

func level(line string) slog.Level {
	switch {
	case strings.HasSuffix(line, "the database system is starting up"):
		return slog.LevelDebug // our own question whether it is ready
	case strings.HasPrefix(line, "PANIC"), strings.HasPrefix(line, "FATAL"), strings.HasPrefix(line, "ERROR"), strings.HasPrefix(line, "WARNING"):
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// reason is why the child has ended: its last words.
func (c *child) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.last) == 0 {
		return fmt.Errorf("it ended: %w", c.err)
	}
	return fmt.Errorf("it ended (%w): %s", c.err, strings.Join(c.last, "; "))
}

// stop sends one signal after the other until the child has ended.
func (c *child) stop(patience time.Duration, signals ...syscall.Signal) error {
	for _, signal := range signals {
		if err := c.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-c.ended:
			return nil
		case <-time.After(patience):
		}
	}
	return errors.New("it does not end")
}
