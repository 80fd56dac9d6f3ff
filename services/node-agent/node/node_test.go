package node

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
	nodeagent "github.com/slipway-paas/slipway/services/node-agent"
	"github.com/slipway-paas/slipway/services/node-agent/runtime/runtimetest/testimage"
)

const patience = 40 * time.Second

// platform is the NATS side of the world, as the scheduler would drive it.
type platform struct {
	t        *testing.T
	server   *natsconn.Embedded
	desired  *view.View[*nodev1.DesiredInstance]
	registry *testimage.Registry
	log      *slog.Logger
	config   Config

	mu    sync.Mutex
	facts []eventstore.Recorded
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the test needs root, for Podman's limits and networks")
	}
	dir, err := os.MkdirTemp("", "slipway-node-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &platform{t: t, registry: testimage.New(t), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	keys, err := natsconn.EnsureKeys(filepath.Join(dir, "keys"), "n1")
	if err != nil {
		t.Fatal(err)
	}
	p.server, err = natsconn.StartEmbedded(natsconn.EmbeddedConfig{
		Listen: "127.0.0.1:0", StoreDir: filepath.Join(dir, "nats"), Keys: keys, Log: p.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.server.Stop)
	nc, js := p.connect(natsconn.Config{SeedFile: p.server.SeedFile(natsconn.RolePlatform)})
	if err := natsconn.Provision(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	p.desired, err = view.Open(t.Context(), js, subjects.BucketDesired, func() *nodev1.DesiredInstance { return &nodev1.DesiredInstance{} })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Subscribe(subjects.AllSecretsRequests, answerSecrets(t)); err != nil {
		t.Fatal(err)
	}
	p.follow(jetstream.New(js, p.log))
	p.config = Config{
		NodeID: "n1", PlatformID: "test", DataDir: filepath.Join(dir, "agent"), NamespacePool: 3,
		PruneImagesAfter:   nodeagent.MinPruneAfter,
		InsecureRegistries: []string{p.registry.Host},
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := Purge(ctx, p.config, p.log); err != nil {
			t.Errorf("purge: %v", err)
		}
	})
	return p
}

func (p *platform) connect(as natsconn.Config) (*nats.Conn, natsjs.JetStream) {
	p.t.Helper()
	as.URL, as.Name, as.Log = p.server.URL(), p.t.Name(), p.log
	nc, err := natsconn.Connect(as)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	if err != nil {
		p.t.Fatal(err)
	}
	return nc, js
}

func answerSecrets(t *testing.T) nats.MsgHandler {
	return func(m *nats.Msg) {
		data, err := proto.Marshal(&nodev1.InstanceSecrets{Env: map[string]string{"COLOR": "blue"}})
		if err == nil {
			err = m.Respond(data)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func (p *platform) follow(store eventstore.Store) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- store.Follow(ctx, 0, func(_ context.Context, events []eventstore.Recorded) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.facts = append(p.facts, events...)
			return nil
		}, nil, subjects.AllEvents)
	}()
	p.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
}

// types are the recorded facts' types, in order.
func (p *platform) types() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for _, f := range p.facts {
		names = append(names, f.Type())
	}
	return strings.Join(names, " ")
}

func (p *platform) lastStarted() *deploymentv1.ContainerStarted {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := len(p.facts) - 1; n >= 0; n-- {
		if s, ok := p.facts[n].Payload.(*deploymentv1.ContainerStarted); ok {
			return s
		}
	}
	return nil
}

func (p *platform) until(what string, done func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited %v in vain until %s; recorded: %s", patience, what, p.types())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *platform) answers(attempt uint32, path, want string) {
	p.t.Helper()
	p.until("attempt answers "+path, func() bool {
		started := p.lastStarted()
		if started == nil || started.GetAttempt() != attempt {
			return false
		}
		response, err := http.Get("http://" + started.GetAddress() + path)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return err == nil && strings.Contains(string(body), want)
	})
}

// agent is a node that runs until it is stopped.
func (p *platform) agent() (n *Node, stop func()) {
	p.t.Helper()
	nc, js := p.connect(natsconn.Config{SeedFile: p.server.NodeSeedFile("n1"), Role: natsconn.RoleNode, Node: "n1"})
	n, err := Open(p.t.Context(), p.config, Deps{
		NATS: nc, JetStream: js, Facts: jetstream.New(js, p.log), Log: p.log, Version: "test",
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
		n.Close()
	})
	p.t.Cleanup(stop)
	return n, stop
}

func instanceOf(id, image string) *nodev1.DesiredInstance {
	return &nodev1.DesiredInstance{
		OrgId: "acme", DeploymentId: "shop", ReleaseId: "r1", InstanceId: id, NodeId: "n1", ContainerName: "shop-" + id,
		Image: image, Port: 3000, MemoryLimitMb: 64, CpuLimitMillicores: 500, HasEnv: true,
		DesiredState: nodev1.DesiredState_DESIRED_STATE_RUNNING,
		Deadlines:    &deploymentv1.Deadlines{Drain: durationpb.New(100 * time.Millisecond), Grace: durationpb.New(5 * time.Second)},
	}
}

func (p *platform) put(wish *nodev1.DesiredInstance) {
	p.t.Helper()
	if _, err := p.desired.Put(p.t.Context(), subjects.DesiredKey("n1", wish.GetInstanceId()), wish); err != nil {
		p.t.Fatal(err)
	}
}

func TestANodeRunsWhatThePlatformWants(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	ref, _ := p.registry.Push(t, "acme/shop", "v1", "one")
	wish := instanceOf("i1", ref)
	put := func() {
		t.Helper()
		p.put(wish)
	}

	put()
	n, stop := p.agent()
	p.answers(1, "/env", "COLOR=blue")

	// A container that is killed behind the agent's back is started again.
	if err := n.podman.Stop(t.Context(), p.lastStarted().GetContainerId(), 0); err != nil {
		t.Fatal(err)
	}
	p.answers(2, "/", "hello")

	// An agent that comes back finds its container and says nothing new.
	stop()
	p.answers(2, "/", "hello")
	before := p.types()
	n, stop = p.agent()
	p.until("the agent is ready", func() bool { return n.Ready() == nil })

	// Stopped apps start again with the next run.
	if err := n.StopApps(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := p.types(); now != before {
		t.Errorf("recorded %s after %s", now, before)
	}
	stop()
	_, stop = p.agent()
	p.answers(3, "/", "hello")

	wish.DesiredState = nodev1.DesiredState_DESIRED_STATE_DRAINING
	put()
	p.until("the instance is removed", func() bool { return strings.HasSuffix(p.types(), "ContainerRemoved") })
	stop()
	want := "ImagePulled ContainerStarted ContainerExited ContainerStarted ContainerStarted ContainerExited ContainerRemoved"
	if got := p.types(); got != want {
		t.Errorf("recorded %s, want %s", got, want)
	}
}
