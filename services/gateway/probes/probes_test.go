package probes_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/probes"
)

func connect(t *testing.T) jetstream.JetStream {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	keys, err := natsconn.EnsureKeys(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: filepath.Join(dir, "store"), Keys: keys, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	nc, err := natsconn.Connect(natsconn.Config{URL: server.URL(), SeedFile: server.SeedFile(natsconn.RolePlatform), Name: t.Name(), Log: log})
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

func TestTheLastProbeAndEachNewOneAreTold(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	js := connect(t)
	told := make(chan *healthv1.ProbeResult, 16)
	following, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	// Following begins before the stream is there.
	go func() {
		done <- probes.NewJetStream(js, slog.New(slog.DiscardHandler)).Follow(following, func(r *healthv1.ProbeResult) { told <- r })
	}()
	if err := natsconn.Provision(ctx, js, 1); err != nil {
		t.Fatal(err)
	}
	publish := func(data []byte) {
		t.Helper()
		if _, err := js.Publish(ctx, subjects.Probe("o", "d", "i"), data); err != nil {
			t.Fatal(err)
		}
	}
	publish([]byte("rubbish"))
	for second := range 3 {
		data, err := proto.Marshal(&healthv1.ProbeResult{DeploymentId: "d", CheckedAt: timestamppb.New(time.Unix(int64(second), 0))})
		if err != nil {
			t.Fatal(err)
		}
		publish(data)
	}
	for {
		select {
		case r := <-told:
			if r.GetDeploymentId() != "d" {
				t.Fatalf("told of %v", r)
			}
			if r.GetCheckedAt().AsTime().Unix() < 2 {
				continue
			}
		case <-ctx.Done():
			t.Fatal("the last probe was never told")
		}
		break
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("a clean stop returned %v", err)
	}
}
