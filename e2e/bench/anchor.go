package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/podman"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// anchor is Podman alone: a service of its own, with the configuration that the
// platform's Podman has, and Podman's own bridge network.
type anchor struct {
	podman  *podman.Client
	service *exec.Cmd
	dir     string
	conf    string
	image   string
	http    *http.Client
}

// newAnchor starts Podman with the configuration of the node's Podman, and pulls the
// image that the platform runs too.
func newAnchor(ctx context.Context, node *stack.Node, image string) (*anchor, error) {
	dir, err := os.MkdirTemp("", "slipway-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for Podman: %w", err)
	}
	a := &anchor{dir: dir, image: image, conf: filepath.Join(dir, "containers.conf"), http: freshConnections()}
	conf, err := os.ReadFile(filepath.Join(node.Dir, "containers.conf"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the platform's Podman configuration: %w", err), os.RemoveAll(dir))
	}
	if err := os.WriteFile(a.conf, conf, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("write Podman's configuration: %w", err), os.RemoveAll(dir))
	}
	socket := filepath.Join(dir, "podman.sock")
	a.service = a.command(context.WithoutCancel(ctx), "system", "service", "--time=0", "unix://"+socket)
	a.service.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	a.service.WaitDelay = time.Second
	if err := a.service.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start Podman: %w", err), os.RemoveAll(dir))
	}
	a.podman = podman.Dial(socket)
	err = client.Poll(ctx, func(ctx context.Context) (bool, string, error) {
		err := a.podman.Ping(ctx)
		return err == nil, fmt.Sprint(err), nil
	})
	if err == nil {
		err = a.podman.Pull(ctx, image)
	}
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *anchor) command(ctx context.Context, args ...string) *exec.Cmd {
	run := filepath.Join(a.dir, "run")
	global := []string{
		"--root", filepath.Join(a.dir, "storage"), "--runroot", run, "--tmpdir", filepath.Join(run, "libpod"),
		"--network-config-dir", filepath.Join(a.dir, "networks"),
	}
	c := exec.CommandContext(ctx, "podman", append(global, args...)...)
	c.Env = append(os.Environ(), "CONTAINERS_CONF="+a.conf)
	return c
}

func (a *anchor) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var failures []error
	if out, err := a.command(ctx, "rm", "--all", "--force", "--time", "0").CombinedOutput(); err != nil {
		failures = append(failures, fmt.Errorf("remove Podman's containers: %w: %s", err, out))
	}
	if err := a.service.Process.Kill(); err != nil {
		failures = append(failures, fmt.Errorf("end Podman: %w", err))
	}
	// It was killed: that it says so is no news.
	_ = a.service.Wait()
	overlay := filepath.Join(a.dir, "storage", "overlay")
	if err := unix.Unmount(overlay, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		failures = append(failures, fmt.Errorf("unmount %s: %w", overlay, err))
	}
	return errors.Join(append(failures, os.RemoveAll(a.dir))...)
}

// batch is what apps.batch is, with Podman alone.
func (a *anchor) batch(ctx context.Context) (float64, error) {
	name := func(i int) string { return fmt.Sprintf("many-%d", i) }
	took, err := inParallel(ctx, batch, func(ctx context.Context, i int) error {
		_, err := a.deploy(ctx, name(i), starterLimits())
		return err
	})
	if err != nil {
		return 0, err
	}
	_, err = inParallel(ctx, batch, func(ctx context.Context, i int) error { return a.remove(ctx, name(i)) })
	return batch / took.Seconds(), err
}

// deploy creates and starts a container and waits for its first 200.
func (a *anchor) deploy(ctx context.Context, name string, limits podman.Limits) (time.Duration, error) {
	// Podman's service lowers its own limits, and nobody may go above them.
	limit := func(resource int, most uint64) uint64 {
		var l unix.Rlimit
		if unix.Prlimit(a.service.Process.Pid, resource, nil, &l) == nil {
			most = min(most, l.Max)
		}
		return most
	}
	began := time.Now()
	id, err := a.podman.Create(ctx, podman.Spec{
		Name: name, Image: a.image, Env: map[string]string{"PORT": appPort}, Limits: limits,
		NoFile: limit(unix.RLIMIT_NOFILE, 65536), NoProc: limit(unix.RLIMIT_NPROC, 65536),
		KeptCapabilities: []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"},
	})
	if err != nil {
		return 0, err
	}
	if err := a.podman.Start(ctx, id); err != nil {
		return 0, err
	}
	inspected, err := a.podman.Inspect(ctx, id)
	if err != nil {
		return 0, err
	}
	if err := first200(ctx, a.http, "http://"+inspected.IP()+":"+appPort+"/", ""); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

func (a *anchor) remove(ctx context.Context, name string) error { return a.podman.Remove(ctx, name) }

// freshConnections is for one answer each, keptConnections for many.
func freshConnections() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

func keptConnections() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4 * atOnce}}
}

// askEvery is how often is asked for the first 200: short beside what is measured, and
// long enough that asking does not take the machine from those who are asked.
const askEvery = 4 * time.Millisecond

// first200 asks until the answer is 200.
func first200(ctx context.Context, c *http.Client, url, host string) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("ask %s: %w", url, err)
		}
		request.Host = host
		request.Header.Set("Accept", "application/json")
		response, err := c.Do(request)
		if err == nil {
			// Read to its end, the connection is used again.
			_, err = io.Copy(io.Discard, response.Body)
			err = errors.Join(err, response.Body.Close())
			if err == nil && response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the first 200 of %s%s: %w", url, host, ctx.Err())
		case <-tick.C:
		}
	}
}
