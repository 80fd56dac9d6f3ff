package scenarios

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/e2e/stack"
	"github.com/slipway-paas/slipway/libs/natsconn"
)

func TestAFullDiskIsSaidAndCommandsWorkAgainOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{})
	image := push(t, s, "latest", "one")
	a := deploy(t, s, map[string]any{"image": image, "port": 8080, "env_vars": map[string]string{"A": "b"}})
	a.serves("one")
	disk := onSmallDisk(t, s, "nats", "store")
	a.serves("one")

	t.Log("the disk fills, while operators go on")
	fill(t, disk)
	refuseOne(t, s)
	eventually(t, "health says that the log takes no writes", func(ctx context.Context) (bool, string, error) {
		answer, err := s.Client().Do(ctx, http.MethodGet, "/api/v1/health", nil)
		if err != nil {
			return false, "", err
		}
		services := answer.Object("services")
		return answer.Status == http.StatusServiceUnavailable && services["event log"] == false && services["postgres"] == true, answer.String(), nil
	})
	for what, ask := range map[string]func() (int, http.Header, string){
		"create": func() (int, http.Header, string) {
			answer := call(t, s.Client(), http.MethodPost, "/api/deploy/apps", map[string]any{
				"image": image, "port": 8080, "subdomain": name(t, "b"), "tier": "buddo-starter", "env_vars": map[string]string{"A": "b"}})
			return answer.Status, answer.Header, answer.String()
		},
		"restart": func() (int, http.Header, string) {
			answer := call(t, s.Client(), http.MethodPost, a.path("/restart"), nil)
			return answer.Status, answer.Header, answer.String()
		},
	} {
		status, header, text := ask()
		if status != http.StatusServiceUnavailable || header.Get("Content-Type") != "application/problem+json" ||
			header.Get("Retry-After") == "" || !strings.Contains(text, "disk is full") {
			t.Errorf("%s on a full disk: %s %v", what, text, header)
		}
	}
	a.serves("one")
	a.wait("running")

	t.Log("there is room again")
	if err := os.Remove(filepath.Join(disk, "somebodys")); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.do("restart")
	a.serves("one")
	b := deploy(t, s, map[string]any{"image": image, "port": 8080, "subdomain": name(t, "b"), "env_vars": map[string]string{"A": "b"}})
	b.serves("one")
	a.destroy()
	a.wait("destroyed")
}

// refuseOne has a write to the log fail on the disk, which the server does not forget
// by itself.
func refuseOne(t *testing.T, s *stack.Stack) {
	t.Helper()
	nc, err := natsconn.Connect(natsconn.Config{
		URL: s.NATS, SeedFile: filepath.Join(s.NATSKeys, "platform.nk"), Role: natsconn.RolePlatform,
		Name: t.Name(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := js.Publish(ctx, "evt.e2e.deployment.nobody.Nothing", make([]byte, 1<<20)); err == nil {
		t.Fatal("a write on a full disk is acknowledged")
	}
}

// onSmallDisk moves a directory of the platform's data to a disk of its own, with the
// daemon stopped and the apps running, and returns where it is.
func onSmallDisk(t *testing.T, s *stack.Stack, below ...string) string {
	t.Helper()
	if err := s.Process(stack.Daemon).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(append([]string{s.Dir, "data"}, below...)...)
	before := at + ".before"
	info, err := os.Stat(at)
	if err == nil {
		err = errors.Join(os.Rename(at, before), os.Mkdir(at, info.Mode()))
	}
	if err == nil {
		err = syscall.Mount("tmpfs", at, "tmpfs", 0, fmt.Sprintf("size=%d,mode=%o", 32<<20, info.Mode().Perm()))
	}
	if err == nil {
		err = os.CopyFS(at, os.DirFS(before))
	}
	if err != nil {
		t.Fatalf("put %s on a small disk: %v", at, err)
	}
	if err := s.Restart(stack.Daemon); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return at
}

// fill takes all the room that is left.
func fill(t *testing.T, disk string) {
	t.Helper()
	file, err := os.Create(filepath.Join(disk, "somebodys"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int{64 << 10, 4 << 10} {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}
