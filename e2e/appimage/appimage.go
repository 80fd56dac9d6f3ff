// Package appimage builds the scenarios' app and pushes it to a registry, without
// a container engine: one static binary is one layer.
package appimage

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const app = "github.com/slipway-paas/slipway/e2e/testapp"

// Builder compiles the app once and makes images of it.
type Builder struct {
	once  sync.Once
	layer v1.Layer
	err   error
}

// Push makes an image whose app calls itself version, with more environment as
// NAME=value, and pushes it to reference, e.g. 127.0.0.1:5055/demo/app:1.
func (b *Builder) Push(ctx context.Context, reference, version string, env ...string) error {
	b.once.Do(func() { b.layer, b.err = build(ctx) })
	if b.err != nil {
		return b.err
	}
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		return fmt.Errorf("parse %s: %w", reference, err)
	}
	image, err := mutate.AppendLayers(empty.Image, b.layer)
	if err != nil {
		return fmt.Errorf("add the app's layer: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("read the image's config: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config.Entrypoint = []string{"/testapp"}
	file.Config.Env = append([]string{"APP_VERSION=" + version}, env...)
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return fmt.Errorf("set the image's config: %w", err)
	}
	if err := remote.Write(ref, image, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push %s: %w", reference, err)
	}
	return nil
}

func build(ctx context.Context) (v1.Layer, error) {
	dir, err := os.MkdirTemp("", "slipway-testapp-")
	if err != nil {
		return nil, fmt.Errorf("make a directory to build in: %w", err)
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "testapp")
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, app)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the app: %w\n%s", err, out)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read the app: %w", err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "testapp", Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
		return nil, fmt.Errorf("write the layer: %w", err)
	}
	if _, err := w.Write(content); err != nil {
		return nil, fmt.Errorf("write the layer: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write the layer: %w", err)
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	})
}
