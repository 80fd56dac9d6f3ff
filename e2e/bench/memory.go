package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/slipway-paas/slipway/e2e/stack"
)

// settle is how long the daemon gets to become idle, so that memory in use is not
// mistaken for memory in need.
const settle = 20 * time.Second

func memorySection(ctx context.Context, b *bench) (err error) {
	s, done, err := b.platform(ctx)
	if err != nil {
		return err
	}
	defer done(&err)
	a, err := newApps(ctx, s)
	if err != nil {
		return err
	}
	empty, err := idleMemory(ctx, s)
	if err != nil {
		return err
	}
	say("daemon's idle memory, no app", fmt.Sprintf("%.0f MB", empty), "at most 120 MB")
	const n = 100
	if _, err := inParallel(ctx, n, func(ctx context.Context, _ int) error {
		_, _, err := a.deploy(ctx)
		return err
	}); err != nil {
		return fmt.Errorf("start %d apps: %w", n, err)
	}
	full, err := idleMemory(ctx, s)
	if err != nil {
		return err
	}
	say(fmt.Sprintf("daemon's idle memory, %d apps", n),
		fmt.Sprintf("%.0f MB, %.2f MB an app", full, (full-empty)/n), "at most 1 MB an app")
	return nil
}

// idleMemory is the daemon's resident memory in MB.
func idleMemory(ctx context.Context, s *stack.Stack) (float64, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(settle):
	}
	content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.Process(stack.Daemon).Pid()), "status"))
	if err != nil {
		return 0, fmt.Errorf("read the daemon's memory: %w", err)
	}
	_, rest, found := bytes.Cut(content, []byte("VmRSS:"))
	fields := bytes.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, fmt.Errorf("the kernel does not say how much memory the daemon has")
	}
	kilobytes, err := strconv.ParseFloat(string(fields[0]), 64)
	if err != nil {
		return 0, fmt.Errorf("read the daemon's memory: %w", err)
	}
	return kilobytes / 1024, nil
}
