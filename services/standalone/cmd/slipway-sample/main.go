// Command slipway-sample pushes the sample app to a registry as an image of one
// static binary. It needs neither a Dockerfile nor a container daemon.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/spf13/pflag"
)

const pushTimeout = time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "slipway-sample:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := pflag.NewFlagSet("slipway-sample", pflag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintf(os.Stderr, "Usage: slipway-sample push [flags]\n\nPushes the sample app and prints the image's reference.\n\n%s", flags.FlagUsages())
	}
	registry := flags.String("registry", "127.0.0.1:5055", "host:port of the registry")
	repository := flags.String("name", "sample", "repository and tag")
	binary := flags.String("binary", "", "the app's static binary; slipway-sample-app beside this program when empty")
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return nil
	case err != nil:
		return err
	case flags.NArg() != 1 || flags.Arg(0) != "push":
		flags.Usage()
		return errors.New("say push")
	}
	if *binary == "" {
		own, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the app's binary: %w", err)
		}
		*binary = filepath.Join(filepath.Dir(own), "slipway-sample-app")
	}
	reference, err := name.ParseReference(*registry+"/"+*repository, name.Insecure)
	if err != nil {
		return fmt.Errorf("--registry and --name: %w", err)
	}
	image, err := build(*binary)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	if err := remote.Write(reference, image, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push %s: %w", reference, err)
	}
	_, err = fmt.Fprintln(out, reference)
	return err
}

// build makes the same image each time from the same binary.
func build(binary string) (v1.Image, error) {
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read the app's binary: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		err := w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(content)), ModTime: time.Unix(0, 0)})
		if err == nil {
			_, err = w.Write(content)
		}
		return io.NopCloser(&archive), errors.Join(err, w.Close())
	})
	if err != nil {
		return nil, fmt.Errorf("make the image's layer: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("make the image: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("make the image: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config = v1.Config{Entrypoint: []string{"/app"}, User: "65534:65534", Env: []string{"PATH=/"}, StopSignal: "SIGTERM"}
	image, err = mutate.ConfigFile(image, file)
	if err != nil {
		return nil, fmt.Errorf("make the image: %w", err)
	}
	return image, nil
}
