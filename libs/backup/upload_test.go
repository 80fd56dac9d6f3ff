package backup_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jsm.go/api"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/slipway-paas/slipway/libs/backup"
)

// In a cluster the answer that says where to send a stream may come before the word
// that somebody listens there.
func TestAStreamIsHandedOverToAServerThatListensAMomentLater(t *testing.T) {
	t.Parallel()
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not answer")
	}
	connect := func() *nats.Conn {
		nc, err := nats.Connect(ns.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	cluster, client := connect(), connect()
	var got bytes.Buffer
	take := func(m *nats.Msg) {
		got.Write(m.Data)
		answer := ""
		if len(m.Data) == 0 {
			answer = `{"type":"io.nats.jetstream.api.v1.stream_create_response","config":{"name":"LOG"}}`
		}
		if err := m.Respond([]byte(answer)); err != nil {
			t.Error(err)
		}
	}
	if _, err := cluster.Subscribe(fmt.Sprintf(api.JSApiStreamRestoreT, "LOG"), func(m *nats.Msg) {
		if err := m.Respond([]byte(`{"type":"io.nats.jetstream.api.v1.stream_restore_response","deliver_subject":"here"}`)); err != nil {
			t.Error(err)
		}
		time.AfterFunc(200*time.Millisecond, func() {
			if _, err := cluster.Subscribe("here", take); err != nil {
				t.Error(err)
			}
		})
	}); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Flush(); err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("event"), 40_000) // several chunks
	path := filepath.Join(t.TempDir(), "stream")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := backup.Upload(t.Context(), client, path, api.JSApiStreamRestoreRequest{Config: api.StreamConfig{Name: "LOG"}}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), content) {
		t.Errorf("%d bytes came, or others than the %d that were sent", got.Len(), len(content))
	}
}
