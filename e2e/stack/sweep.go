package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	temporaryPrefix = "slw-"
	// ownerFile holds the pid of the process that a temporary directory belongs to.
	ownerFile = "owner.pid"
	// standaloneNodes is where the daemon keeps its nodes' directories.
	standaloneNodes = "nodes"
)

// makeTemporary makes a directory for one stack. Those whose owner died without
// cleaning up are swept first: a test that was killed leaves nothing for long.
func makeTemporary(bin string) (string, error) {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), temporaryPrefix+"*"))
	if err != nil {
		return "", fmt.Errorf("look for old stacks: %w", err)
	}
	for _, dir := range old {
		if abandoned(dir) {
			ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
			// What cannot be swept now is tried again by the next stack.
			_ = sweep(ctx, bin, dir)
			cancel()
		}
	}
	dir, err := os.MkdirTemp("", temporaryPrefix)
	if err != nil {
		return "", fmt.Errorf("make a directory for the stack: %w", err)
	}
	// The database's own user must be able to reach its directory.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("open the stack's directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, ownerFile), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return "", fmt.Errorf("mark the stack's directory: %w", err)
	}
	return dir, nil
}

func abandoned(dir string) bool {
	content, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	return err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// Remove removes a stack's directory with all that it has on the machine. No process
// of it may run. A directory that is not there is no error.
func Remove(ctx context.Context, bin, dir string) error {
	bin, err := Binaries(bin)
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("find the directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "credentials.json")); err != nil {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("%s does not look like a platform's directory: %w", dir, err)
	}
	return sweep(ctx, bin, dir)
}

// sweep removes what a stack with that directory has left on the machine, and the
// directory.
func sweep(ctx context.Context, bin, dir string) error {
	failure := strip(ctx, bin, dir)
	if err := os.RemoveAll(dir); err != nil {
		failure = errors.Join(failure, fmt.Errorf("remove the stack's directory: %w", err))
	}
	return failure
}

// strip ends what a stack with that directory has left on the machine: the platform's
// own purge, then whatever that could not see.
func strip(ctx context.Context, bin, dir string) error {
	var failures []error
	agents, err := agentDirs(dir)
	failures = append(failures, err)
	for _, agent := range agents {
		failures = append(failures, purge(ctx, bin, agent))
	}
	// A daemon that was killed leaves its children; they all name the directory.
	failures = append(failures, endProcesses(ctx, dir), unmountBelow(dir))
	return errors.Join(failures...)
}

// agentDirs finds the node-agents' data directories: each has Podman's configuration.
func agentDirs(dir string) ([]string, error) {
	var agents []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "storage":
			return fs.SkipDir
		case entry.Name() == "containers.conf":
			agents = append(agents, filepath.Dir(path))
		}
		return nil
	})
	if err != nil {
		return agents, fmt.Errorf("look for node-agents: %w", err)
	}
	return agents, nil
}

// purge has a node-agent remove its containers, Podman service, namespaces and
// bridge. The agent itself must have ended.
func purge(ctx context.Context, bin, agent string) error {
	id := strings.TrimPrefix(filepath.Base(agent), nodePrefix)
	if filepath.Base(filepath.Dir(agent)) == standaloneNodes {
		id = filepath.Base(agent)
	}
	command := exec.CommandContext(ctx, filepath.Join(bin, nodeAgent), "purge", "--node-id", id, "--data-dir", agent)
	command.Env = environment()
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("purge node %s: %w: %s", id, err, out)
	}
	return nil
}

// endProcesses kills the processes that have the directory in their command line.
func endProcesses(ctx context.Context, dir string) error {
	pids, err := processesOf(dir)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		// One that has ended meanwhile is what we want.
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for len(pids) > 0 {
		if pids, err = processesOf(dir); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v of the stack do not end: %w", pids, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func processesOf(dir string) ([]int, error) {
	return processesWhere(func(line string) bool { return strings.Contains(line, dir+"/") })
}

// processesWhere are the processes, not ours, with such a command line: arguments with
// a NUL after each.
func processesWhere(match func(line string) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("read the list of processes: %w", err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err == nil && match(string(line)) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// PodmanService are the processes of the nodes' Podman services.
func (s *Stack) PodmanService() ([]int, error) {
	return processesWhere(func(line string) bool {
		return strings.Contains(line, "system\x00service") && slices.ContainsFunc(s.Nodes(), func(n *Node) bool {
			return strings.Contains(line, n.Socket())
		})
	})
}

// Children are the processes of that program that the platform itself has started.
func (s *Stack) Children(program string) ([]int, error) {
	return processesWhere(func(line string) bool {
		name, _, _ := strings.Cut(line, "\x00")
		return filepath.Base(name) == program && strings.Contains(line, s.Dir+"/")
	})
}

// unmountBelow unmounts what Podman left mounted in the directory.
func unmountBelow(dir string) error {
	content, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	var failures []error
	lines := strings.Split(string(content), "\n")
	slices.Reverse(lines)
	for _, line := range lines {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[1], dir+"/") {
			continue
		}
		if err := unix.Unmount(fields[1], unix.MNT_DETACH); err != nil {
			failures = append(failures, fmt.Errorf("unmount %s: %w", fields[1], err))
		}
	}
	return errors.Join(failures...)
}
