package subscriptions_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/subscriptions"
)

const patience = 20 * time.Second

// house is a log with two organizations, acme of ada and other of eve, and the door.
type house struct {
	t       *testing.T
	log     *natsconn.Embedded
	js      jetstream.JetStream
	store   eventstore.Store
	service *subscriptions.Service
	config  subscriptions.Config
	stop    func()
	written atomic.Int64
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func begin(t *testing.T) *house {
	t.Helper()
	dir := t.TempDir()
	keys, err := natsconn.EnsureKeys(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: filepath.Join(dir, "store"), Keys: keys, Leaf: "127.0.0.1:0", Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Stop)
	nc, err := natsconn.Connect(natsconn.Config{Server: log, SeedFile: keys.SeedFile(natsconn.RolePlatform), Role: natsconn.RolePlatform, Name: "test", Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := natsconn.Provision(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, log: log, js: js, store: eventlog.New(js, discard()), config: subscriptions.Config{
		Listen: "127.0.0.1:0", Leaf: log.LeafURL(), LeafKey: keys.SeedFile(natsconn.RoleSubscriptions),
	}}
	h.occur("acme", subjects.Org, "acme", &identityv1.OrgCreated{OrgId: "acme", Name: "Acme", OwnerId: "ada"})
	h.occur("other", subjects.Org, "other", &identityv1.OrgCreated{OrgId: "other", Name: "Other", OwnerId: "eve"})
	h.start()
	return h
}

// start opens the door and waits until it lets in.
func (h *house) start() {
	h.t.Helper()
	s, err := subscriptions.New(h.config, subscriptions.Deps{Store: h.store, JetStream: h.js, Log: discard()})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
	h.t.Cleanup(h.stop)
	h.service = s
	until(h.t, "the door lets in", func() bool { return s.Ready() == nil })
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// occur writes an event and returns its sequence.
func (h *house) occur(org, kind, id string, payload proto.Message) uint64 {
	h.t.Helper()
	sequence, err := h.store.Record(h.t.Context(), h.event(org, kind, id, payload))
	if err != nil {
		h.t.Fatal(err)
	}
	return sequence
}

func (h *house) event(org, kind, id string, payload proto.Message) eventstore.Event {
	return eventstore.Event{
		Aggregate: subjects.Of(org, kind, id), ID: fmt.Sprintf("e-%d", h.written.Add(1)), Payload: payload, Time: time.Now().UTC(), Source: "test", Actor: "ada",
	}
}

func (h *house) running(org, id string) uint64 {
	return h.occur(org, subjects.Deployment, id, &deploymentv1.DeploymentRunning{ReleaseId: "r-of-" + org})
}

// credential is what an organization has made, with what its seed signs.
type credential struct {
	id   string
	pair nkeys.KeyPair
}

func (h *house) credential(org, operator, id string, change ...func(*identityv1.EventCredentialCreated)) credential {
	h.t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		h.t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		h.t.Fatal(err)
	}
	e := &identityv1.EventCredentialCreated{CredentialId: id, OrgId: org, OperatorId: operator, Name: "c", PublicKey: public}
	for _, c := range change {
		c(e)
	}
	h.occur(org, subjects.EventCredential, id, e)
	return credential{id: id, pair: pair}
}

func expiring(at time.Time) func(*identityv1.EventCredentialCreated) {
	return func(e *identityv1.EventCredentialCreated) { e.ExpiresAt = timestamppb.New(at) }
}

// client is one connection, with what it was refused.
type client struct {
	*nats.Conn
	refused chan error
}

func (h *house) dial(c credential, more ...nats.Option) (*client, error) {
	public, err := c.pair.PublicKey()
	if err != nil {
		h.t.Fatal(err)
	}
	refused := make(chan error, 100)
	options := append([]nats.Option{
		nats.Nkey(public, c.pair.Sign), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			select {
			case refused <- err:
			default:
			}
		}),
	}, more...)
	nc, err := nats.Connect("nats://"+h.service.Address(), options...)
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(nc.Close)
	return &client{nc, refused}, nil
}

// connect connects as soon as the door knows the credential.
func (h *house) connect(c credential) *client {
	h.t.Helper()
	var in *client
	until(h.t, "the credential is known", func() bool {
		var err error
		in, err = h.dial(c)
		return err == nil
	})
	return in
}

// consumer is the credential's own, as soon as there is one.
func (c *client) consumer(t *testing.T, id string) jetstream.Consumer {
	t.Helper()
	js, err := jetstream.New(c.Conn)
	if err != nil {
		t.Fatal(err)
	}
	var found jetstream.Consumer
	until(t, "the credential has a consumer", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		found, err = js.Consumer(ctx, subjects.StreamEvents, subjects.SubscriptionConsumer(id))
		return err == nil
	})
	return found
}

// read takes so many messages, and acknowledges them.
func read(t *testing.T, from jetstream.Consumer, n int) []jetstream.Msg {
	t.Helper()
	var all []jetstream.Msg
	for late := time.Now().Add(patience); len(all) < n && time.Now().Before(late); {
		batch, err := from.Fetch(n-len(all), jetstream.FetchMaxWait(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			if err := m.DoubleAck(t.Context()); err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
		}
		if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) {
			t.Fatal(err)
		}
	}
	if len(all) != n {
		t.Fatalf("got %d messages, want %d", len(all), n)
	}
	return all
}
