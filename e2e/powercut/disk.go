// Package powercut cuts the power of the disk under the event log and looks at what
// is left. It needs root, for loop devices.
package powercut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	platterBytes = 448 << 20
	volumeBytes  = 320 << 20
	platterImage = "platter.img"
	volumeImage  = "volume.img"

	// ioctlShutdown is EXT4_IOC_SHUTDOWN: the file system takes and writes nothing
	// more; with withoutFlush not even its journal.
	ioctlShutdown = 0x8004587d
	withoutFlush  = 2
)

// disk is a disk with a volatile write cache, as most have: two ext4 file systems,
// one in a file of the other. What is written to the inner one's device lies in the
// memory of the outer one until the inner one asks for a flush; only then does it
// reach the platter, the file that a power cut leaves.
type disk struct {
	dir   string
	outer mounted
	inner mounted
}

// newDisk makes an empty disk below dir and mounts it with those options.
func newDisk(ctx context.Context, dir, options string) (*disk, error) {
	d := &disk{dir: dir}
	if err := makeFileSystem(ctx, d.platter(), platterBytes); err != nil {
		return nil, err
	}
	err := d.mountOuter()
	if err == nil {
		err = makeFileSystem(ctx, d.volume(), volumeBytes)
	}
	if err == nil {
		err = d.mountInner(options)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// reopen mounts the disk that a cut has left, as a machine that boots does: each
// file system recovers from its journal.
func reopen(platter, dir string) (*disk, error) {
	d := &disk{dir: dir}
	err := os.Rename(platter, d.platter())
	if err == nil {
		err = d.mountOuter()
	}
	if err == nil {
		err = d.mountInner("")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the disk after the cut: %w", err), d.close())
	}
	return d, nil
}

func (d *disk) platter() string { return filepath.Join(d.dir, platterImage) }
func (d *disk) volume() string  { return filepath.Join(d.dir, "outer", volumeImage) }

// path is where files are kept.
func (d *disk) path() string { return filepath.Join(d.dir, "inner") }

func (d *disk) mountOuter() (err error) {
	d.outer, err = mountImage(d.platter(), filepath.Join(d.dir, "outer"), "")
	return err
}

func (d *disk) mountInner(options string) (err error) {
	d.inner, err = mountImage(d.volume(), d.path(), options)
	return err
}

// sync brings all that was written so far to the platter.
func (d *disk) sync() error {
	for _, m := range []mounted{d.inner, d.outer} {
		root, err := os.Open(m.path)
		if err != nil {
			return fmt.Errorf("sync the disk: %w", err)
		}
		if err := errors.Join(unix.Syncfs(int(root.Fd())), root.Close()); err != nil {
			return fmt.Errorf("sync the disk: %w", err)
		}
	}
	return nil
}

// cut ends the power: from one moment on nothing reaches the platter. It copies what
// is there to the file named.
func (d *disk) cut(ctx context.Context, to string) error {
	root, err := os.Open(d.outer.path)
	if err != nil {
		return fmt.Errorf("cut the power: %w", err)
	}
	err = unix.IoctlSetPointerInt(int(root.Fd()), ioctlShutdown, withoutFlush)
	if err = errors.Join(err, root.Close()); err != nil {
		return fmt.Errorf("cut the power: %w", err)
	}
	if err := d.outer.settle(ctx); err != nil {
		return err
	}
	return copyFile(d.platter(), to)
}

// close unmounts what is mounted.
func (d *disk) close() error {
	return errors.Join(d.inner.unmount(), d.outer.unmount())
}

func makeFileSystem(ctx context.Context, image string, size int64) error {
	file, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4 (Debian's package e2fsprogs): %w: %s", err, out)
	}
	return nil
}

// mounted is a mounted image.
type mounted struct {
	path string
	// device is the loop device's name, e.g. loop3.
	device string
}

func mountImage(image, path, options string) (mounted, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return mounted{}, fmt.Errorf("mount %s: %w", image, err)
	}
	device, err := attach(image)
	if err != nil {
		return mounted{}, fmt.Errorf("mount %s: %w", image, err)
	}
	// The device goes when its file system does: it is held by nothing else.
	defer device.Close()
	if err := unix.Mount(device.Name(), path, "ext4", 0, options); err != nil {
		return mounted{}, fmt.Errorf("mount %s: %w", image, err)
	}
	return mounted{path: path, device: filepath.Base(device.Name())}, nil
}

// attach gives the image a free loop device.
func attach(image string) (*os.File, error) {
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close() // the device keeps its own
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop devices need root and the kernel's loop driver: %w", err)
	}
	defer control.Close()
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := os.OpenFile("/dev/loop"+strconv.Itoa(number), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			return device, nil
		}
		_ = device.Close() // nothing was written
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("set %s up: %w", device.Name(), err)
		}
	}
}

// settle waits until the device has no write under way.
func (m mounted) settle(ctx context.Context) error {
	for {
		text, err := os.ReadFile(filepath.Join("/sys/block", m.device, "inflight"))
		if err != nil {
			return fmt.Errorf("wait for %s: %w", m.device, err)
		}
		if counts := strings.Fields(string(text)); len(counts) == 2 && counts[1] == "0" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", m.device, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func (m *mounted) unmount() error {
	if m.path == "" {
		return nil
	}
	var err error
	// A process that was just killed may hold a file for a moment longer.
	for range 200 {
		if err = unix.Unmount(m.path, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("unmount %s: %w", m.path, err), unix.Unmount(m.path, unix.MNT_DETACH))
	}
	m.path = ""
	return nil
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy the platter: %w", err)
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("copy the platter: %w", err)
	}
	_, err = io.Copy(target, source)
	if err = errors.Join(err, target.Close()); err != nil {
		return fmt.Errorf("copy the platter: %w", err)
	}
	return nil
}
