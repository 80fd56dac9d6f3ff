package podman

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"
)

func TestAPodmanThatHangsHoldsNobodyLongerThanTheyWait(t *testing.T) {
	t.Parallel()
	m := newMachine(t, false)
	pid := m.podman.service.pid()
	if pid <= 1 {
		t.Fatalf("Podman's service is process %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.podman.Info(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("info says %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := m.podman.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping says %v", err)
	}
	goOn()
	if _, err := m.podman.Info(t.Context()); err != nil {
		t.Errorf("when it goes on, info says %v", err)
	}
}
