package natsconn_test

import (
	"context"
	"log/slog"
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

// provisioned is a platform with two nodes, n1 and n2, whose secrets are asked for.
func provisioned(t *testing.T) (e *natsconn.Embedded, platform jetstream.JetStream, asked chan string) {
	t.Helper()
	e = start(t, t.TempDir())
	platform = connect(t, e, natsconn.RolePlatform, slog.DiscardHandler)
	if err := natsconn.Provision(deadline(t), platform, 1); err != nil {
		t.Fatal(err)
	}
	asked = make(chan string, 10)
	if _, err := platform.Conn().Subscribe(subjects.AllSecretsRequests, func(m *nats.Msg) {
		asked <- m.Subject
		if err := m.Respond([]byte("secret of " + m.Subject)); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := platform.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	return e, platform, asked
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestANodesKeyDoesNotGetTheEnvironmentOfAnothersInstances(t *testing.T) {
	t.Parallel()
	e, _, asked := provisioned(t)
	thief := connectNode(t, e, "n1").Conn()

	if m, err := thief.RequestWithContext(soon(t), subjects.SecretsRequest("n2", "i1"), nil); err == nil {
		t.Errorf("n1 asked for n2's environment and was told %q", m.Data)
	}
	if m, err := thief.RequestWithContext(deadline(t), subjects.SecretsRequest("n1", "i1"), nil); err != nil || string(m.Data) != "secret of svc.env.n1.i1" {
		t.Errorf("n1 asked for its own and got %v, %v", m, err)
	}
	if only := <-asked; only != "svc.env.n1.i1" || len(asked) != 0 {
		t.Errorf("the platform was asked for %s and %d more", only, len(asked))
	}
}

func TestANodesKeyDoesNotHearWhatAnotherIsAnswered(t *testing.T) {
	t.Parallel()
	e, _, _ := provisioned(t)
	refused := make(chan error, 1)
	thief, err := nats.Connect(e.URL(), seed(t, e.NodeSeedFile("n1")), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case refused <- err:
		default:
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(thief.Close)
	for _, all := range []string{"_INBOX_NODE.n2.>", "_INBOX_NODE.>", "_INBOX.>", subjects.AllSecretsRequests, "$KV." + subjects.BucketDesired + ".>"} {
		if _, err := thief.SubscribeSync(all); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-refused:
			if !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
				t.Errorf("%s: %v", all, err)
			}
		case <-deadline(t).Done():
			t.Errorf("n1 listens on %s", all)
		}
	}
}

func seed(t *testing.T, file string) nats.Option {
	t.Helper()
	option, err := nats.NkeyOptionFromSeed(file)
	if err != nil {
		t.Fatal(err)
	}
	return option
}

func TestANodesKeyDoesNotBeatForAnotherNode(t *testing.T) {
	t.Parallel()
	e, platform, _ := provisioned(t)
	ctx := deadline(t)
	heartbeats := func(id string) jetstream.KeyValue {
		bucket, err := connectNode(t, e, id).KeyValue(ctx, subjects.BucketNodes)
		if err != nil {
			t.Fatal(err)
		}
		return bucket
	}
	if _, err := heartbeats("n2").Put(ctx, "n2", []byte("two's own")); err != nil {
		t.Fatal(err)
	}
	n1 := heartbeats("n1")
	if _, err := n1.Put(ctx, "n1", []byte("one's own")); err != nil {
		t.Errorf("n1's own heartbeat: %v", err)
	}
	for what, err := range map[string]error{
		"write":  second(n1.Put(soon(t), "n2", []byte("forged"))),
		"create": second(n1.Create(soon(t), "n3", []byte("forged"))),
		"delete": n1.Delete(soon(t), "n2"),
	} {
		if err == nil {
			t.Errorf("n1 may %s another's heartbeat", what)
		}
	}
	all, err := platform.KeyValue(ctx, subjects.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	if entry, err := all.Get(ctx, "n2"); err != nil || string(entry.Value()) != "two's own" {
		t.Errorf("n2's heartbeat is %v, %v", entry, err)
	}
	if _, err := all.Get(ctx, "n3"); err == nil {
		t.Error("n1 made up a node")
	}
}

func second[T any](_ T, err error) error { return err }

func TestANodesKeyFollowsOnlyWhatItMustRun(t *testing.T) {
	t.Parallel()
	e, platform, _ := provisioned(t)
	ctx := deadline(t)
	desired, err := platform.KeyValue(ctx, subjects.BucketDesired)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{subjects.DesiredKey("n1", "i1"), subjects.DesiredKey("n2", "i2")} {
		if _, err := desired.Put(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	n1 := connectNode(t, e, "n1")
	follow := func(ctx context.Context, filter ...string) error {
		c := jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, FilterSubjects: filter}
		if len(filter) == 1 {
			c.FilterSubject, c.FilterSubjects = filter[0], nil
		}
		_, err := n1.CreateConsumer(ctx, "KV_"+subjects.BucketDesired, c)
		return err
	}
	of := func(node string) string { return "$KV." + subjects.BucketDesired + "." + subjects.DesiredOfNode(node) }
	if err := follow(ctx, of("n1")); err != nil {
		t.Errorf("n1 cannot follow its own: %v", err)
	}
	for _, filters := range [][]string{{of("n2")}, {"$KV." + subjects.BucketDesired + ".>"}, {of("n1"), of("n2")}, nil} {
		if err := follow(soon(t), filters...); err == nil {
			t.Errorf("n1 follows %v", filters)
		}
	}
}

func TestARunningServerTakesUpTheKeyOfANewNodeAndLetsGoOfALostOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := start(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	platform := connect(t, e, natsconn.RolePlatform, slog.DiscardHandler).Conn()
	lost := connectNode(t, e, "n2").Conn()

	keys, err := natsconn.EnsureKeys(filepath.Join(dir, "keys"), "late")
	if err != nil {
		t.Fatal(err)
	}
	until(t, deadline(t), "the new node's key is known", func() bool {
		nc, err := nats.Connect(e.URL(), seed(t, keys.NodeSeedFile("late")))
		if err != nil {
			return false
		}
		nc.Close()
		return true
	})
	if err := os.Remove(keys.NodeSeedFile("n2")); err != nil {
		t.Fatal(err)
	}
	until(t, deadline(t), "the lost node is cut off", func() bool { return !lost.IsConnected() })
	if platform.Stats().Reconnects != 0 || !platform.IsConnected() {
		t.Error("the platform's own connection broke")
	}
}
