package natsconn_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func TestAFullDiskIsSaidAndMendsWhenThereIsRoomAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	smallDisk(t, store, 16<<20)
	server := start(t, dir)
	run(t, server)
	js := inProcess(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := natsconn.Provision(ctx, js, 1); err != nil {
		t.Fatal(err)
	}
	acknowledged := map[uint64]string{}
	write := func(what string) error {
		t.Helper()
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		ack, err := js.Publish(bounded, "evt.acme.deployment.1.Happened", []byte(what), jetstream.WithRetryAttempts(0))
		if err == nil {
			acknowledged[ack.Sequence] = what
		}
		return err
	}
	for i := range 100 {
		if err := write(fmt.Sprint("before ", i)); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 2 {
		fill(t, filepath.Join(store, "somebody's"))
		refused := false
		for i := 0; i < 200 && !refused; i++ {
			refused = write(strings.Repeat("x", 4<<10)) != nil
		}
		if !refused {
			t.Fatal("a full disk takes everything")
		}
		until(t, ctx, "the full disk is said", func() bool {
			err := server.Ready()
			return errors.Is(err, natsconn.ErrNotWritable) && errors.Is(err, syscall.ENOSPC)
		})
		if err := os.Remove(filepath.Join(store, "somebody's")); err != nil {
			t.Fatal(err)
		}
		until(t, ctx, "it is ready again", func() bool { return server.Ready() == nil })
		until(t, ctx, "writes are taken again", func() bool { return write(fmt.Sprint("after ", round)) == nil })
	}
	stream, err := js.Stream(ctx, subjects.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "$KV."+subjects.BucketNodes+".n1", []byte("x")); err != nil {
		t.Errorf("the bucket in memory is not there any more: %v", err)
	}
	for sequence, what := range acknowledged {
		m, err := stream.GetMsg(ctx, sequence)
		if err != nil {
			t.Fatalf("the acknowledged event %d is lost: %v", sequence, err)
		}
		if string(m.Data) != what {
			t.Errorf("the acknowledged event %d is another one now", sequence)
		}
	}
}

func TestAServerThatStartsOnAFullDiskServesWhatItHasAndWritesWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	smallDisk(t, store, 16<<20)
	ctx := deadline(t)
	first := start(t, dir)
	js := inProcess(t, first)
	if err := natsconn.Provision(ctx, js, 1); err != nil {
		t.Fatal(err)
	}
	write := func() error {
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := js.Publish(bounded, "evt.acme.deployment.1.Happened", make([]byte, 1<<20), jetstream.WithRetryAttempts(0))
		return err
	}
	for range 4 {
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	first.Stop()
	fill(t, filepath.Join(store, "somebody's"))

	server := start(t, dir)
	run(t, server)
	js = inProcess(t, server)
	until(t, ctx, "the full disk is said before an event is refused", func() bool { return errors.Is(server.Ready(), syscall.ENOSPC) })
	stream, err := js.Stream(ctx, subjects.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.GetMsg(ctx, 4); err != nil {
		t.Errorf("what is there cannot be read while the disk is full: %v", err)
	}
	if err := os.Remove(filepath.Join(store, "somebody's")); err != nil {
		t.Fatal(err)
	}
	until(t, ctx, "it is ready again", func() bool { return server.Ready() == nil })
	if err := write(); err != nil {
		t.Errorf("a write once there is room: %v", err)
	}
}

func run(t *testing.T, server *natsconn.Embedded) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func inProcess(t *testing.T, server *natsconn.Embedded) jetstream.JetStream {
	t.Helper()
	nc, err := natsconn.Connect(natsconn.Config{
		Server: server, SeedFile: server.SeedFile(natsconn.RolePlatform), Name: t.Name(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// smallDisk mounts a disk of that many bytes.
func smallDisk(t *testing.T, at string, size int) {
	t.Helper()
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mount a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount the small disk: %v", err)
		}
	})
}

// fill takes all the room that is left.
func fill(t *testing.T, name string) {
	t.Helper()
	file, err := os.Create(name)
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

func until(t *testing.T, ctx context.Context, what string, holds func() bool) {
	t.Helper()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
