package scheduler_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	log "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/projection/pgtest"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/scheduler"
)

var postgres *pgtest.Cluster

func TestMain(m *testing.M) {
	cluster, err := pgtest.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	postgres = cluster
	code := m.Run()
	if err := cluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// platform is a scheduler on a real NATS server and a real PostgreSQL. The test
// plays node-agent, health and proxy-config.
type platform struct {
	t      testing.TB
	client schedulerv1.SchedulerServiceClient
	admin  adminv1.AdminServiceClient
	pool   *pgxpool.Pool
	store  eventstore.Store
	nc     *nats.Conn
	js     jetstream.JetStream
	// service is for what has no client here.
	service *scheduler.Service
	// again starts another scheduler over the same log once the first is stopped.
	again func()
	stop  func()
	// restartNATS takes the server away for as long as away returns not.
	restartNATS func(away func())
}

type tiers struct {
	billingv1.UnimplementedTierServiceServer
}

func (tiers) GetTier(_ context.Context, in *billingv1.GetTierRequest) (*billingv1.GetTierResponse, error) {
	switch in.Slug {
	case "buddo-starter":
		return &billingv1.GetTierResponse{Tier: &billingv1.Tier{Id: "t1", Slug: in.Slug, MemoryLimitMb: 256, CpuLimitMillicores: 250, MaxDeployments: 3}}, nil
	case "btc-pro":
		return &billingv1.GetTierResponse{Tier: &billingv1.Tier{Id: "t2", Slug: in.Slug, MemoryLimitMb: 512, CpuLimitMillicores: 500, CustomDomainAllowed: true}}, nil
	}
	return nil, status.Error(codes.NotFound, "no such tier")
}

func start(t testing.TB) *platform {
	t.Helper()
	return startWith(t, scheduler.DefaultConfig())
}

func startWith(t testing.TB, config scheduler.Config) *platform {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	keys, err := natsconn.EnsureKeys(t.TempDir())
	must(t, err)
	embedded := natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: t.TempDir(), Keys: keys, Log: quiet}
	server, err := natsconn.StartEmbedded(embedded)
	must(t, err)
	t.Cleanup(func() { server.Stop() })
	nc, err := natsconn.Connect(natsconn.Config{URL: server.URL(), SeedFile: server.SeedFile(natsconn.RolePlatform), Role: natsconn.RolePlatform, Name: "test", Log: quiet})
	must(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	must(t, err)
	must(t, natsconn.Provision(t.Context(), js, 1))
	bucket, err := js.KeyValue(t.Context(), subjects.BucketKeys)
	must(t, err)
	master, err := seal.Master(t.TempDir() + "/master.key")
	must(t, err)
	memory, err := rpc.NewMemory(quiet)
	must(t, err)
	billingv1.RegisterTierServiceServer(memory, tiers{})
	p := &platform{t: t, store: log.New(js, quiet), nc: nc, js: js, client: schedulerv1.NewSchedulerServiceClient(memory.Conn()),
		admin: adminv1.NewAdminServiceClient(memory.Conn()), pool: postgres.Database(t)}
	config.AllowedRegistries = []string{"ghcr.io/"}
	deps := scheduler.Deps{Store: p.store, NATS: nc, JetStream: js, Pool: p.pool,
		Tiers: billingv1.NewTierServiceClient(memory.Conn()), Seal: seal.New(master, seal.NewKV(bucket)), Now: time.Now, Log: quiet}
	p.again = func() {
		t.Helper()
		s, err := scheduler.New(config, deps)
		must(t, err)
		p.service, p.stop = s, run(t, s.Run)
		within(t, "the scheduler is ready", func() bool { return s.Ready() == nil })
	}
	p.restartNATS = func(away func()) {
		t.Helper()
		embedded.Listen = strings.TrimPrefix(server.URL(), "nats://")
		server.Stop()
		away()
		server, err = natsconn.StartEmbedded(embedded)
		must(t, err)
	}
	p.service, err = scheduler.New(config, deps)
	must(t, err)
	p.service.Register(memory)
	run(t, memory.Run)
	p.stop = run(t, p.service.Run)
	within(t, "the scheduler is ready", func() bool { return p.service.Ready() == nil })
	return p
}

// run runs a part until the test ends or stop is called.
func run(t testing.TB, part func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stopped with %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func owner() *identityv1.Principal {
	return &identityv1.Principal{OrgId: "acme", OperatorId: "op1", AppId: "app1", Scopes: []string{"deploy:manage"}}
}

func request(subdomain string) *schedulerv1.CreateDeploymentRequest {
	return &schedulerv1.CreateDeploymentRequest{Principal: owner(), Subdomain: subdomain, Image: "ghcr.io/acme/app:1", Tier: "buddo-starter"}
}

func (p *platform) create(in *schedulerv1.CreateDeploymentRequest) *schedulerv1.Deployment {
	p.t.Helper()
	out, err := p.client.CreateDeployment(p.t.Context(), in)
	must(p.t, err)
	return out.Deployment
}

func (p *platform) get(id string) *schedulerv1.Deployment {
	p.t.Helper()
	out, err := p.client.GetDeployment(p.t.Context(), &schedulerv1.GetDeploymentRequest{Principal: owner(), Id: id})
	must(p.t, err)
	return out.Deployment
}

// node heartbeats once.
func (p *platform) node(id string, memoryMB uint32) {
	p.t.Helper()
	v, err := view.Open(p.t.Context(), p.js, subjects.BucketNodes, func() *nodev1.Node { return &nodev1.Node{} })
	must(p.t, err)
	_, err = v.Put(p.t.Context(), id, &nodev1.Node{NodeId: id, MemoryMb: memoryMB, CpuMillicores: 4000, SeenAt: timestamppb.Now()})
	must(p.t, err)
}

// desired waits for the one instance that a node must run in that state.
func (p *platform) desired(deployment string, state nodev1.DesiredState) *nodev1.DesiredInstance {
	p.t.Helper()
	v, err := view.Open(p.t.Context(), p.js, subjects.BucketDesired, func() *nodev1.DesiredInstance { return &nodev1.DesiredInstance{} })
	must(p.t, err)
	var found *nodev1.DesiredInstance
	within(p.t, fmt.Sprintf("an instance of %s is %s", deployment, state), func() bool {
		entries, err := v.Snapshot(p.t.Context(), ">")
		must(p.t, err)
		for _, e := range entries {
			if e.Value.DeploymentId == deployment && e.Value.DesiredState == state {
				found = e.Value
			}
		}
		return found != nil
	})
	return found
}

func (p *platform) record(d *nodev1.DesiredInstance, facts ...proto.Message) {
	p.t.Helper()
	for _, f := range facts {
		_, err := p.store.Record(p.t.Context(), eventstore.Event{Aggregate: subjects.Of(d.OrgId, subjects.Deployment, d.DeploymentId),
			ID: fmt.Sprintf("%T-%s-%d", f, d.InstanceId, time.Now().UnixNano()), Payload: f, Time: time.Now(), Source: "test"})
		must(p.t, err)
	}
}

// serve plays what follows a placement until the route is bound.
func (p *platform) serve(d *nodev1.DesiredInstance) {
	p.t.Helper()
	p.record(d, &deploymentv1.ContainerStarted{ReleaseId: d.ReleaseId, InstanceId: d.InstanceId, NodeId: d.NodeId, Attempt: 1, ContainerId: "c1", Address: "10.0.0.2:3000"},
		&deploymentv1.InstanceHealthy{ReleaseId: d.ReleaseId, InstanceId: d.InstanceId, Attempt: 1},
		&deploymentv1.RouteBound{ReleaseId: d.ReleaseId, InstanceIds: []string{d.InstanceId}})
}

func (p *platform) status(id, want string) {
	p.t.Helper()
	within(p.t, id+" is "+want, func() bool { return p.get(id).Status == want })
}

func fault(t testing.TB, err error, code string) *problem.Error {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", code)
	}
	p := problem.From(err)
	if p.Code != code {
		t.Fatalf("%s: %v, want %s", p.Code, err, code)
	}
	return p
}
