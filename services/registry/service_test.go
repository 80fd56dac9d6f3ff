package registry_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipway-paas/slipway/services/registry"
)

func start(t *testing.T, dir string) (address string, stop func()) {
	t.Helper()
	s, err := registry.New(registry.Config{Listen: "127.0.0.1:0", StoreDir: dir}, registry.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s.Addr(), func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAnImageIsPushedKeptPulledAndDeleted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	image, err := random.Image(64<<10, 2)
	if err != nil {
		t.Fatal(err)
	}
	want, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}

	address, stop := start(t, dir)
	if err := remote.Write(ref(t, address, "team/app:v1"), image, remote.WithContext(t.Context())); err != nil {
		t.Fatalf("push: %v", err)
	}
	stop()

	address, stop = start(t, dir)
	defer stop()
	pulled, err := remote.Get(ref(t, address, "team/app:v1"), remote.WithContext(t.Context()))
	if err != nil || pulled.Digest != want {
		t.Fatalf("after a restart: %v, %v, want %v", pulled, err, want)
	}
	if err := remote.Delete(ref(t, address, "team/app@"+want.String()), remote.WithContext(t.Context())); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if _, err := remote.Get(ref(t, address, "team/app:v1"), remote.WithContext(t.Context())); err == nil {
		t.Error("a deleted image is still there")
	}
}

func TestATakenAddressIsRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = registry.New(registry.Config{Listen: taken.Addr().String(), StoreDir: t.TempDir()}, registry.Deps{Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}

func ref(t *testing.T, address, repository string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(address+"/"+repository, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
