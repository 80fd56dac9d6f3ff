package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Process is one process of a stack; what it prints is in its log file.
type Process struct {
	Name string
	// LogFile holds its standard output and error.
	LogFile string

	command *exec.Cmd
	ended   chan struct{}
	err     error
}

// command is what a process is started with, and started again.
type command struct {
	name   string
	binary string
	args   []string
	env    []string
	dir    string
	logDir string
	// screen gets what the process prints too, when not nil.
	screen io.Writer
	// setup changes the process before it starts, e.g. its user.
	setup func(*exec.Cmd)
}

// start runs the command. The process is asked to stop should ours die first.
func (c command) start() (*Process, error) {
	if err := os.MkdirAll(c.logDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory for logs: %w", err)
	}
	path := filepath.Join(c.logDir, c.name+".log")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", c.name, err)
	}
	p := &Process{Name: c.name, LogFile: path, command: exec.Command(c.binary, c.args...), ended: make(chan struct{})}
	p.command.Dir = c.dir
	p.command.Env = append(environment(), c.env...)
	p.command.Stdout, p.command.Stderr = file, file
	if c.screen != nil {
		both := io.MultiWriter(file, c.screen)
		p.command.Stdout, p.command.Stderr = both, both
	}
	// Containers' monitors may hold the output open; do not wait for them.
	p.command.WaitDelay = time.Second
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if c.setup != nil {
		c.setup(p.command)
	}
	if err := p.command.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", c.name, err), file.Close())
	}
	go func() {
		defer close(p.ended)
		p.err = p.command.Wait()
		// All that matters has been written by the process itself.
		_ = file.Close()
	}()
	return p, nil
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.command.Process.Pid }

// Program is the path of its binary.
func (p *Process) Program() string { return p.command.Path }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Running returns nil while the process runs, and how it ended once it has.
func (p *Process) Running() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended: %s\n%s", p.Name, p.command.ProcessState, p.Tail())
	default:
		return nil
	}
}

// Kill ends the process at once, as a crash would, and waits for it.
func (p *Process) Kill() error {
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	<-p.ended
	return nil
}

// Stop asks the process to end, as Ctrl-C would, and kills it when it has not by
// the end of ctx; that is an error.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.command.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-p.ended:
		var exit *exec.ExitError
		if errors.As(p.err, &exit) {
			return fmt.Errorf("%s did not stop cleanly: %w\n%s", p.Name, p.err, p.Tail())
		}
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s did not stop in time\n%s", p.Name, p.Tail()), p.Kill())
	}
}

// Tail returns the last lines that the process printed.
func (p *Process) Tail() string {
	const most = 6 << 10
	content, err := os.ReadFile(p.LogFile)
	if err != nil {
		return err.Error()
	}
	if len(content) > most {
		content = content[len(content)-most:]
		content = content[bytes.IndexByte(content, '\n')+1:]
	}
	return fmt.Sprintf("--- last lines of %s (%s)\n%s", p.Name, p.LogFile, content)
}

// environment is ours without what would configure the platform by accident.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SLIPWAY_") })
}
