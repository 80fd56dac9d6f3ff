package natsconn_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func start(t *testing.T, dir string) *natsconn.Embedded {
	t.Helper()
	keys, err := natsconn.EnsureKeys(filepath.Join(dir, "keys"), "n1", "n2")
	if err != nil {
		t.Fatal(err)
	}
	e, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{
		Listen: "127.0.0.1:0", StoreDir: filepath.Join(dir, "store"), Keys: keys, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	return e
}

func connect(t *testing.T, e *natsconn.Embedded, role natsconn.Role, log slog.Handler) jetstream.JetStream {
	t.Helper()
	return open(t, natsconn.Config{URL: e.URL(), SeedFile: e.SeedFile(role), Role: role, Name: t.Name(), Log: slog.New(log)})
}

func connectNode(t *testing.T, e *natsconn.Embedded, id string) jetstream.JetStream {
	t.Helper()
	return open(t, natsconn.Config{
		URL: e.URL(), SeedFile: e.NodeSeedFile(id), Role: natsconn.RoleNode, Node: id, Name: id, Log: slog.New(slog.DiscardHandler),
	})
}

func open(t *testing.T, c natsconn.Config) jetstream.JetStream {
	t.Helper()
	nc, err := natsconn.Connect(c)
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

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestWhatWasAcknowledgedIsThereAfterARestart(t *testing.T) {
	t.Parallel()
	ctx, dir := deadline(t), t.TempDir()
	first := start(t, dir)
	js := connect(t, first, natsconn.RolePlatform, slog.DiscardHandler)
	for range 2 {
		if err := natsconn.Provision(ctx, js, 1); err != nil {
			t.Fatalf("provisioning must be repeatable: %v", err)
		}
	}
	if _, err := js.Publish(ctx, "evt.acme.deployment.1.Happened", []byte("x")); err != nil {
		t.Fatal(err)
	}
	first.Stop()
	if first.Ready() == nil {
		t.Error("a stopped server says that it is ready")
	}

	second := start(t, dir)
	stream, err := connect(t, second, natsconn.RolePlatform, slog.DiscardHandler).Stream(ctx, subjects.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.Msgs; got != 1 {
		t.Errorf("%d events after the restart, want 1", got)
	}
	if err := stream.Purge(ctx); err == nil {
		t.Error("the event log let itself be purged")
	}
}

func TestAnEdgeReadsRoutesAndNothingElse(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	e := start(t, t.TempDir())
	platform := connect(t, e, natsconn.RolePlatform, slog.DiscardHandler)
	if err := natsconn.Provision(ctx, platform, 1); err != nil {
		t.Fatal(err)
	}
	routes, err := platform.KeyValue(ctx, subjects.BucketRoutes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := routes.Put(ctx, "app.example.com", []byte("there")); err != nil {
		t.Fatal(err)
	}

	edge := connect(t, e, natsconn.RoleEdge, slog.DiscardHandler)
	view, err := edge.KeyValue(ctx, subjects.BucketRoutes)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := view.WatchAll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if entry := <-watch.Updates(); entry == nil || string(entry.Value()) != "there" {
		t.Errorf("the edge sees %v, want the route", entry)
	}
	if err := watch.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := view.Get(ctx, "app.example.com"); err != nil {
		t.Errorf("the edge cannot get a route: %v", err)
	}
	applied, err := platform.Conn().SubscribeSync(subjects.AllEdgesApplied)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(platform.Conn().Flush(), edge.Conn().Publish(subjects.EdgeApplied("e1"), []byte("7")), edge.Conn().Flush()); err != nil {
		t.Fatal(err)
	}
	if _, err := applied.NextMsgWithContext(ctx); err != nil {
		t.Errorf("the edge's acknowledgement did not come: %v", err)
	}

	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := view.Put(short, "app.example.com", []byte("stolen")); err == nil {
		t.Error("an edge changed a route")
	}
	if entry, err := routes.Get(ctx, "app.example.com"); err != nil || string(entry.Value()) != "there" {
		t.Errorf("the route is %v, %v", entry, err)
	}
}

func TestANodeSaysWhatItDidAndCannotDecide(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	e := start(t, t.TempDir())
	platform := connect(t, e, natsconn.RolePlatform, slog.DiscardHandler)
	if err := natsconn.Provision(ctx, platform, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := platform.Conn().Subscribe(subjects.AllSecretsRequests, func(m *nats.Msg) {
		if err := m.Respond([]byte("secret")); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := platform.Conn().Flush(); err != nil {
		t.Fatal(err)
	}

	node := connectNode(t, e, "n1")
	if _, err := node.Publish(ctx, "evt.acme.deployment.1.ContainerStarted", nil, jetstream.WithMsgID("once")); err != nil {
		t.Errorf("a node could not record a fact: %v", err)
	}
	if answer, err := node.Conn().RequestWithContext(ctx, subjects.SecretsRequest("n1", "i1"), nil); err != nil || string(answer.Data) != "secret" {
		t.Errorf("a node asked for its secrets and got %v, %v", answer, err)
	}
	nodes, err := node.KeyValue(ctx, subjects.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nodes.Put(ctx, "n1", []byte("alive")); err != nil {
		t.Errorf("a node's heartbeat was refused: %v", err)
	}

	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := node.Publish(short, "evt.acme.deployment.1.DeploymentRequested", nil); err == nil {
		t.Error("a node took a decision")
	}
}

func TestAServerRefusesStrangersAndTakenAddressesInWords(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir())
	stranger, err := natsconn.EnsureKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if _, err := natsconn.Connect(natsconn.Config{URL: e.URL(), SeedFile: stranger.SeedFile(natsconn.RolePlatform), Name: "stranger", Log: log}); err == nil || !strings.Contains(err.Error(), "does not know the key") {
		t.Errorf("a stranger got %v", err)
	}

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: taken.Addr().String(), StoreDir: t.TempDir(), Keys: stranger, Log: log}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a taken address gave %v", err)
	}
}

func TestKeysAreMadeOnceAndForTheirOwnerOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := natsconn.EnsureKeys(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(first.NodeSeedFile("n1"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := natsconn.EnsureKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(second.NodeSeedFile("n1"))
	if err != nil || string(before) != string(after) {
		t.Errorf("the key changed, or %v", err)
	}
	info, err := os.Stat(second.NodeSeedFile("n1"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestALogOfBeforeRepeatsWhatItStoresFromNowOn(t *testing.T) {
	t.Parallel()
	js := connect(t, start(t, t.TempDir()), natsconn.RolePlatform, slog.DiscardHandler)
	ctx := deadline(t)
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: subjects.StreamEvents, Subjects: []string{subjects.AllEvents}, AllowAtomicPublish: true, AllowDirect: true, DenyDelete: true, DenyPurge: true, Duplicates: 2 * time.Minute,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, subjects.Of("acme", subjects.Org, "acme").Event("OrgCreated"), []byte("before")); err != nil {
		t.Fatal(err)
	}
	if err := natsconn.Provision(ctx, js, 1); err != nil {
		t.Fatal(err)
	}
	heard, err := js.Conn().SubscribeSync(subjects.LiveEvents)
	if err != nil {
		t.Fatal(err)
	}
	subject := subjects.Of("acme", subjects.Org, "acme").Event("MemberJoined")
	if _, err := js.Publish(ctx, subject, []byte("after")); err != nil {
		t.Fatal(err)
	}
	if m, err := heard.NextMsgWithContext(ctx); err != nil || m.Subject != subjects.LiveOf(subject) || m.Header.Get("Nats-Sequence") != "2" || string(m.Data) != "after" {
		t.Errorf("repeated %v, %v", m, err)
	}
}
