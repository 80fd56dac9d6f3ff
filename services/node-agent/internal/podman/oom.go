package podman

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kernelOOMKilled looks in the kernel's log for an out-of-memory kill inside the
// container's cgroup since it started. Podman's own flag stays false on cgroup v1,
// and the cgroup with its counter is gone once the exit is known; the log remains,
// also for an agent that was not running then.
func kernelOOMKilled(containerID string, since time.Time) (bool, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("open the kernel's log: %w", err)
	}
	defer unix.Close(fd)
	booted, err := bootTime()
	if err != nil {
		return false, err
	}
	record := make([]byte, 8<<10)
	for {
		n, err := unix.Read(fd, record)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false, nil // the end of what there is
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue // overwritten while reading: the next read goes on
		case err != nil:
			return false, fmt.Errorf("read the kernel's log: %w", err)
		}
		if oomRecord(record[:n], containerID, booted, since) {
			return true, nil
		}
	}
}

// oomRecord understands one record: "prio,seq,microseconds,flags;text".
func oomRecord(record []byte, containerID string, booted, since time.Time) bool {
	head, text, ok := bytes.Cut(record, []byte(";"))
	if !ok || !bytes.HasPrefix(text, []byte("oom-kill:")) || !bytes.Contains(text, []byte("libpod-"+containerID)) {
		return false
	}
	fields := strings.Split(string(head), ",")
	if len(fields) < 3 {
		return false
	}
	micros, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return false
	}
	// The two clocks may disagree by a little after a suspend or a clock step.
	const slack = 2 * time.Second
	return !booted.Add(time.Duration(micros) * time.Microsecond).Before(since.Add(-slack))
}

func bootTime() (time.Time, error) {
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}, fmt.Errorf("read the uptime: %w", err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the uptime: %w", err)
	}
	return time.Now().Add(-time.Duration(seconds * float64(time.Second))), nil
}
