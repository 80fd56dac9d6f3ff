package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"
)

const (
	serviceStartTimeout = 20 * time.Second
	serviceStopTimeout  = 10 * time.Second
)

// service keeps one `podman system service` alive on a socket: it starts it, and
// starts it again with backoff when it dies, until it is closed.
type service struct {
	socket string
	args   []string
	env    []string
	log    *slog.Logger

	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	child  *os.Process
	reason string // why the last child ended
}

// startService returns when the socket answers.
func startService(ctx context.Context, socket string, args, env []string, log *slog.Logger) (*service, error) {
	if err := endLeftover(ctx, socket); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &service{socket: socket, args: args, env: env, log: log, cancel: cancel, done: make(chan struct{})}
	go s.keepAlive(run)
	if err := s.waitAnswers(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// endLeftover stops the service that an agent which was killed left on our socket:
// a fresh child has this agent's configuration and a parent that reaps it.
func endLeftover(ctx context.Context, socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the stale socket: %w", err)
		}
		return nil
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return fmt.Errorf("look at the socket's owner: %w", err)
	}
	var owner *unix.Ucred
	var ownerErr error
	if err := raw.Control(func(fd uintptr) {
		owner, ownerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("look at the socket's owner: %w", err)
	}
	if ownerErr != nil {
		return fmt.Errorf("look at the socket's owner: %w", ownerErr)
	}
	pid := int(owner.Pid)
	switch {
	case pid == os.Getpid():
		// Our own closed socket: a child holds it from fork to exec.
	case pid <= 0:
		// To signal 0 is to signal our own group.
		return fmt.Errorf("the Podman service left at %s belongs to another PID namespace: end it there", socket)
	default:
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			return fmt.Errorf("end the Podman service left by an earlier agent: %w", err)
		}
	}
	deadline := time.Now().Add(serviceStopTimeout)
	for answers(socket) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the Podman service left by an earlier agent (pid %d) does not end", pid)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}

func answers(socket string) bool {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was sent
	return true
}

func (s *service) keepAlive(ctx context.Context) {
	defer close(s.done)
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 10*time.Second
	for ctx.Err() == nil {
		began := time.Now()
		err := s.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		s.log.Warn("the Podman service ended; starting it again", "error", err, "in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (s *service) runOnce(ctx context.Context) error {
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	var output tailBuffer
	cmd := exec.Command("podman", s.args...)
	cmd.Env = s.env
	// Monitors of containers leave a file where the service was started when memory ran out.
	cmd.Dir = filepath.Dir(s.socket)
	cmd.Stdout, cmd.Stderr = &output, &output
	// A group of its own: Ctrl-C in a terminal must not take Podman away while the
	// agent still has containers to stop.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Containers' monitors inherit the output pipe; do not wait for them to close it.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		s.setChild(nil, err.Error())
		return fmt.Errorf("start the Podman service: %w", err)
	}
	s.setChild(cmd.Process, "")
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = stopProcess(cmd.Process, ended)
	}
	said := output.String()
	s.setChild(nil, strings.TrimSpace(fmt.Sprintf("%v %s", err, said)))
	return errors.Join(fmt.Errorf("the Podman service ended: %s", said), err)
}

func stopProcess(p *os.Process, ended <-chan error) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(serviceStopTimeout):
		if err := p.Kill(); err != nil {
			return err
		}
		return <-ended
	}
}

func (s *service) setChild(p *os.Process, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child, s.reason = p, reason
}

func (s *service) waitAnswers(ctx context.Context) error {
	deadline := time.Now().Add(serviceStartTimeout)
	for {
		conn, err := net.Dial("unix", s.socket)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return fmt.Errorf("Podman's service does not answer at %s: %w %s", s.socket, err, s.reason)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for Podman's service: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// pid is the child's, 0 while there is none.
func (s *service) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return 0
	}
	return s.child.Pid
}

func (s *service) close() {
	s.cancel()
	<-s.done
}

// tailBuffer keeps the last kilobytes of what the child says.
type tailBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const tailBufferMax = 4 << 10

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	if extra := t.buf.Len() - tailBufferMax; extra > 0 {
		t.buf.Next(extra)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.buf.String())
}
