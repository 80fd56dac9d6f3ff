package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/images"
	podmannet "github.com/containers/podman/v5/pkg/bindings/network"
	"golang.org/x/sys/unix"
)

// RemoveBridge removes the network that Podman manages for this agent, if there is
// one. Containers must be gone.
func (p *Podman) RemoveBridge(ctx context.Context) (err error) {
	ctx, end := p.call(ctx, "remove network")
	defer end(&err)
	exists, err := podmannet.Exists(ctx, p.bridge, nil)
	if err != nil || !exists {
		return err
	}
	_, err = podmannet.Remove(ctx, p.bridge, nil)
	return err
}

// RemoveImages removes all images of this agent's storage. Without root their files
// belong to ids that only Podman may act for, so deleting the directory is not enough.
// Containers must be gone.
func (p *Podman) RemoveImages(ctx context.Context) (err error) {
	ctx, end := p.call(ctx, "remove images")
	defer end(&err)
	_, errs := images.Remove(ctx, nil, new(images.RemoveOptions).WithAll(true).WithForce(true))
	return errors.Join(errs...)
}

// Purge removes what this Podman keeps outside of its storage root, and lets go of the
// mounts inside, so that the root can be deleted. Containers must be gone and Podman
// closed.
func (p *Podman) Purge() error {
	p.waitForMonitors()
	if err := p.unmount(); err != nil {
		return err
	}
	if err := os.RemoveAll(p.run); err != nil {
		return fmt.Errorf("remove Podman's run directory: %w", err)
	}
	return nil
}

// monitorsTime bounds the wait for what containers' monitors do at the end.
const monitorsTime = 10 * time.Second

// waitForMonitors returns when no process is told of the root any more: the clean-up
// that a monitor starts when its container ended would make the root anew, and mount it.
func (p *Podman) waitForMonitors() {
	for deadline := time.Now().Add(monitorsTime); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil || !slices.ContainsFunc(commands, func(file string) bool {
			text, err := os.ReadFile(file) // it may have ended
			return err == nil && bytes.Contains(text, []byte(p.root+"/"))
		}) {
			return
		}
	}
}

func (p *Podman) unmount() error {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	slices.Reverse(lines) // innermost first
	var errs []error
	for _, line := range lines {
		fields := strings.Fields(line)
		if len(fields) < 2 || !(strings.HasPrefix(fields[1], p.root+"/") || strings.HasPrefix(fields[1], p.run+"/")) {
			continue
		}
		if err := unix.Unmount(fields[1], unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", fields[1], err))
		}
	}
	return errors.Join(errs...)
}
