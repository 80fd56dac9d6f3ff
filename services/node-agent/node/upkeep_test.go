package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
)

// images are the variants of the test image that the node has, by their digests.
func (p *platform) images(n *Node) map[string]bool {
	p.t.Helper()
	list, err := n.podman.Images(p.t.Context())
	// A list that comes upon an image while it goes is none at all.
	for tries := 0; err != nil && strings.Contains(err.Error(), "image not known") && tries < 10; tries++ {
		list, err = n.podman.Images(p.t.Context())
	}
	if err != nil {
		p.t.Fatal(err)
	}
	digests := map[string]bool{}
	for _, i := range list {
		digests[i.Digest] = true
	}
	return digests
}

func TestAnImageThatNothingNeedsGoesAfterItsTime(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	keptRef, kept := p.registry.Push(t, "acme/shop", "v1", "kept")
	goneRef, gone := p.registry.Push(t, "acme/shop", "v2", "gone")
	running, finished := instanceOf("i1", keptRef), instanceOf("i2", goneRef)
	p.put(running)
	p.put(finished)
	n, _ := p.agent()
	p.until("both run", func() bool { return strings.Count(p.types(), "ContainerStarted") == 2 })

	finished.DesiredState = nodev1.DesiredState_DESIRED_STATE_REMOVED
	p.put(finished)
	p.until("one is removed", func() bool { return strings.Contains(p.types(), "ContainerRemoved") })
	unused := time.Now()
	if have := p.images(n); !have[kept] || !have[gone] {
		t.Fatalf("the images are %v, want %s and %s", have, kept, gone)
	}
	p.until("its image is removed", func() bool { return !p.images(n)[gone] })
	if after := time.Since(unused); after < p.config.PruneImagesAfter {
		t.Errorf("it went after %v, want %v or longer", after, p.config.PruneImagesAfter)
	}
	if !p.images(n)[kept] {
		t.Error("the image of the instance that runs is gone")
	}
}

func TestAContainerWhoseMonitorIsKilledWithItIsStartedAgain(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	ref, _ := p.registry.Push(t, "acme/shop", "v1", "one")
	p.put(instanceOf("i1", ref))
	p.agent()
	p.answers(1, "/", "hello")
	monitor, app := processesOf(t, p.lastStarted().GetContainerId())
	for _, pid := range []int{monitor, app} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	p.answers(2, "/", "hello")
	if got, want := p.types(), "ImagePulled ContainerStarted ContainerExited ContainerStarted"; got != want {
		t.Errorf("recorded %s, want %s", got, want)
	}
}

// processesOf finds a container's monitor, and the app that is its child.
func processesOf(t *testing.T, container string) (monitor, app int) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		text, err := os.ReadFile(file)
		words := bytes.Split(text, []byte{0})
		if err != nil || !strings.HasSuffix(string(words[0]), "conmon") || !bytes.Contains(text, []byte(container)) {
			continue
		}
		if monitor, err = strconv.Atoi(filepath.Base(filepath.Dir(file))); err != nil {
			t.Fatal(err)
		}
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", monitor, monitor))
	if err != nil {
		t.Fatalf("the container %s has the monitor %d: %v", container, monitor, err)
	}
	if app, err = strconv.Atoi(strings.TrimSpace(string(children))); err != nil {
		t.Fatalf("the monitor's children are %q: %v", children, err)
	}
	return monitor, app
}

func TestAWrongTimeForImagesIsRefused(t *testing.T) {
	t.Parallel()
	for _, wrong := range []time.Duration{0, time.Second, -time.Hour} {
		c := Config{NodeID: "n1", DataDir: "x", PruneImagesAfter: wrong}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "--prune-images-after") {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	c := Config{NodeID: "n1", DataDir: "x", PruneImagesAfter: time.Hour}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
