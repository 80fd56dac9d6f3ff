package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/containers/podman/v5/libpod/define"
	"github.com/containers/podman/v5/pkg/bindings/containers"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// exitKilled is what a shell says of a process that SIGKILL ended.
const exitKilled = 137

// unreported is true for a container of which Podman says for ever that it runs: its
// process ended, and so did its monitor, which would have said so.
func unreported(state *define.InspectContainerState, id string) bool {
	return !runs(state.Pid, state.StartedAt) && !monitors(state.ConmonPid, id)
}

// stillUnreported asks again: the monitor may have reported the end just before it
// ended itself.
func stillUnreported(ctx context.Context, id string) (bool, error) {
	data, err := containers.Inspect(ctx, id, nil)
	if err != nil {
		return false, notFound(err)
	}
	return stateOf(data.State.Status) == runtime.StateRunning && unreported(data.State, id), nil
}

// runs is false for a process that ended, whether anybody has waited for it or not, and
// for one that was given its number since.
func runs(pid int, containerStarted time.Time) bool {
	if pid <= 0 {
		return false
	}
	state, started, err := processStat(pid)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err != nil {
		return true // nothing is known, and an app that runs is not to be replaced
	}
	// The two clocks may disagree by a little.
	const slack = 10 * time.Second
	return state != 'Z' && state != 'X' && !started.After(containerStarted.Add(slack))
}

// monitors is true while that process is the container's conmon.
func monitors(pid int, id string) bool {
	if pid <= 0 {
		return false
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // empty of what ended
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	return err != nil || bytes.Contains(command, []byte(id))
}

// ticksPerSecond is the unit of times in /proc, the same on every Linux that Go runs on.
const ticksPerSecond = 100

// processStat reads /proc/<pid>/stat: "pid (name) state …", the 22nd field being when
// the process started, in ticks since the boot. See proc(5).
func processStat(pid int) (state byte, started time.Time, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, time.Time{}, err
	}
	// The name may have spaces and parentheses of its own.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	const stateField, startField = 0, 19
	if len(fields) <= startField {
		return 0, time.Time{}, fmt.Errorf("process %d has the state %q, which is not understood", pid, text)
	}
	ticks, err := strconv.ParseInt(string(fields[startField]), 10, 64)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("read when process %d started: %w", pid, err)
	}
	booted, err := bootTime()
	if err != nil {
		return 0, time.Time{}, err
	}
	return fields[stateField][0], booted.Add(time.Duration(ticks) * time.Second / ticksPerSecond), nil
}
