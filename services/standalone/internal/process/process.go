// Package process tells one process from another that got the same number later,
// and ends processes that are not our children.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ID is one process for as long as the machine runs.
type ID struct {
	PID int `json:"pid"`
	// Started is the kernel's start time of the process, in clock ticks since boot.
	Started uint64 `json:"started"`
	// Boot is the machine's boot id: after a reboot nothing of before is alive.
	Boot string `json:"boot"`
}

// Of returns the identity of the process that has that number now.
func Of(pid int) (ID, error) {
	stat, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return ID{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// The second field is the command in parentheses and may hold anything.
	fields := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:])
	const state, startTime = 0, 19
	if len(fields) <= startTime {
		return ID{}, fmt.Errorf("look at process %d: its stat file is not understood", pid)
	}
	if fields[state] == "Z" {
		return ID{}, fmt.Errorf("look at process %d: %w", pid, os.ErrNotExist)
	}
	started, err := strconv.ParseUint(fields[startTime], 10, 64)
	if err != nil {
		return ID{}, fmt.Errorf("look at process %d: start time: %w", pid, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ID{}, fmt.Errorf("read the boot id: %w", err)
	}
	return ID{PID: pid, Started: started, Boot: strings.TrimSpace(string(boot))}, nil
}

// Alive reports whether that very process still runs.
func (id ID) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	now, err := Of(id.PID)
	return err == nil && now == id
}

// Cwd is the process's working directory; empty when it cannot be known.
func (id ID) Cwd() string {
	dir, err := os.Readlink(procPath(id.PID, "cwd"))
	if err != nil {
		return ""
	}
	return dir
}

// Command is the base name of the process's program; empty when it cannot be known.
func (id ID) Command() string {
	path, err := os.Readlink(procPath(id.PID, "exe"))
	if err != nil {
		return ""
	}
	return filepath.Base(strings.TrimSuffix(path, " (deleted)"))
}

// Wait returns when the process has ended or ctx has; then with ctx's error. The
// process need not be a child.
func (id ID) Wait(ctx context.Context) error {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", id.PID, err)
	}
	defer unix.Close(fd)
	if !id.Alive() {
		return nil
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		switch n, err := unix.Poll(poll, 100); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("watch process %d: %w", id.PID, err)
		case n > 0:
			return nil
		}
	}
	return ctx.Err()
}

// Stop sends the signals one after the other, giving the process that long after
// each, until it has ended. It is no error when it was gone before.
func (id ID) Stop(ctx context.Context, patience time.Duration, signals ...syscall.Signal) error {
	for _, signal := range signals {
		if !id.Alive() {
			return nil
		}
		if err := syscall.Kill(id.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop process %d: %w", id.PID, err)
		}
		bounded, cancel := context.WithTimeout(ctx, patience)
		err := id.Wait(bounded)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return fmt.Errorf("process %d does not end", id.PID)
}

func procPath(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}
