// Package testimage serves the test app as an image from a registry in the test's
// own process, so that tests pull without a network.
package testimage

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const appPackage = "github.com/slipway-paas/slipway/services/node-agent/runtime/runtimetest/testapp"

// Registry is a plain HTTP registry on the loopback address.
type Registry struct {
	// Host is its host:port.
	Host string

	mu      sync.Mutex
	handler http.Handler
	down    bool
	binary  []byte
}

// New starts a registry and builds the test app. Both go with the test.
func New(t testing.TB) *Registry {
	t.Helper()
	r := &Registry{handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), binary: build(t)}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.Host = server.Listener.Addr().(*net.TCPAddr).String()
	return r
}

// ServeHTTP breaks connections while the registry is down.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	down := r.down
	r.mu.Unlock()
	if down {
		panic(http.ErrAbortHandler)
	}
	r.handler.ServeHTTP(w, req)
}

// SetDown makes the registry unreachable, or reachable again.
func (r *Registry) SetDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// Push pushes the test app as repository:tag and returns the reference and the
// manifest's digest; another variant is another image that does the same.
func (r *Registry) Push(t testing.TB, repository, tag, variant string) (ref, digest string) {
	t.Helper()
	image := r.image(t, variant)
	ref = r.Host + "/" + repository + ":" + tag
	parsed, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		t.Fatalf("parse %s: %v", ref, err)
	}
	if err := remote.Write(parsed, image); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	hash, err := image.Digest()
	if err != nil {
		t.Fatalf("digest of %s: %v", ref, err)
	}
	return ref, hash.String()
}

func (r *Registry) image(t testing.TB, variant string) v1.Image {
	t.Helper()
	var content bytes.Buffer
	files := tar.NewWriter(&content)
	for _, f := range []struct {
		name string
		body []byte
		mode int64
	}{{"testapp", r.binary, 0o755}, {"variant", []byte(variant), 0o644}} {
		if err := files.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body))}); err != nil {
			t.Fatalf("make the test image: %v", err)
		}
		if _, err := files.Write(f.body); err != nil {
			t.Fatalf("make the test image: %v", err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatalf("make the test image: %v", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	})
	if err != nil {
		t.Fatalf("make the test image: %v", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatalf("make the test image: %v", err)
	}
	image, err = mutate.ConfigFile(image, withEntrypoint(t, image))
	if err != nil {
		t.Fatalf("make the test image: %v", err)
	}
	return image
}

func withEntrypoint(t testing.TB, image v1.Image) *v1.ConfigFile {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatalf("make the test image: %v", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", goruntime.GOARCH
	config.Config.Entrypoint = []string{"/testapp"}
	// What an image says of itself must not be taken for what the agent has said.
	config.Config.Labels = map[string]string{
		"slipway.ip": "127.0.0.1", "slipway.netns": "another", "slipway.owner": "another", "slipway.instance": "another",
	}
	return config
}

func build(t testing.TB) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "testapp")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", out, appPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the test app: %v\n%s", err, said)
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		t.Fatalf("read the test app: %v", err)
	}
	return binary
}
