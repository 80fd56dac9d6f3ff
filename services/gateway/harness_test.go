package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway"
)

// The tokens that the fake identity knows.
const (
	ownerToken    = "slp_owner"
	strangerToken = "slp_stranger"
	readerToken   = "slp_reader"
	adminToken    = "slp_admin"
)

const accessToken = identityv1.CredentialKind_CREDENTIAL_KIND_ACCESS_TOKEN

var principals = map[string]*identityv1.Principal{
	ownerToken:    {Kind: accessToken, OperatorId: "op-1", OrgId: "default", AppId: "app-1", Scopes: []string{"deploy:manage", "apps:write"}},
	strangerToken: {Kind: accessToken, OperatorId: "op-2", OrgId: "other", AppId: "app-2", Scopes: []string{"deploy:manage", "apps:write"}},
	adminToken:    {Kind: accessToken, OperatorId: "op-1", OrgId: "default", AppId: "app-1", Scopes: []string{"deploy:manage", "apps:write", "admin"}},
	readerToken:   {Kind: accessToken, OperatorId: "op-1", OrgId: "default", AppId: "app-3", Scopes: []string{"profile"}},
}

type fakeIdentity struct {
	identityv1.UnimplementedIdentityServiceServer
	mu    sync.Mutex
	asked int
	fails error
}

func (f *fakeIdentity) Authenticate(_ context.Context, req *identityv1.AuthenticateRequest) (*identityv1.AuthenticateResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.fails != nil {
		return nil, f.fails
	}
	for token, p := range principals {
		if hash := sha256.Sum256([]byte(token)); bytes.Equal(hash[:], req.GetTokenSha256()) {
			return &identityv1.AuthenticateResponse{Principal: p}, nil
		}
	}
	return nil, problem.Unauthorized("The access token is not valid.")
}

// fakeScheduler keeps deployments in a map and writes no more events than it is told to.
type fakeScheduler struct {
	schedulerv1.UnimplementedSchedulerServiceServer
	mu          sync.Mutex
	deployments map[string]*schedulerv1.Deployment
	logs        []*schedulerv1.LogEntry
	created     *schedulerv1.CreateDeploymentRequest
	fails       error
	panics      bool
	// commands are the IDs under which deployments were asked for.
	commands []string
	// held, when not nil, is what creating waits for.
	held chan struct{}
}

func (f *fakeScheduler) find(p *identityv1.Principal, id string) (*schedulerv1.Deployment, error) {
	if f.panics {
		panic("the scheduler has a bug")
	}
	if f.fails != nil {
		return nil, f.fails
	}
	d := f.deployments[id]
	switch {
	case d == nil:
		return nil, problem.NotFound("Deployment not found.")
	case d.GetOperatorId() != p.GetOperatorId():
		return nil, problem.Forbidden("Deployment belongs to another operator.")
	}
	return proto.CloneOf(d), nil
}

func (f *fakeScheduler) CreateDeployment(ctx context.Context, req *schedulerv1.CreateDeploymentRequest) (*schedulerv1.CreateDeploymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands = append(f.commands, rpc.CommandID(ctx))
	if held := f.held; held != nil {
		f.mu.Unlock()
		<-held
		f.mu.Lock()
	}
	if f.fails != nil {
		return nil, f.fails
	}
	f.created = proto.CloneOf(req)
	return &schedulerv1.CreateDeploymentResponse{Deployment: &schedulerv1.Deployment{
		Id: uuid.NewString(), OrgId: "default", OperatorId: req.GetPrincipal().GetOperatorId(), AppId: req.GetPrincipal().GetAppId(),
		Subdomain: req.GetSubdomain(), ContainerImage: req.GetImage(), Status: "pending", HealthStatus: "unknown",
		BillingStatus: "active", MemoryLimitMb: 256, CpuLimitMillicores: 250,
		InsertedAt: timestamppb.New(time.Date(2026, 5, 21, 10, 0, 0, 0, time.UTC)),
	}}, nil
}

func (f *fakeScheduler) GetDeployment(_ context.Context, req *schedulerv1.GetDeploymentRequest) (*schedulerv1.GetDeploymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.find(req.GetPrincipal(), req.GetId())
	return &schedulerv1.GetDeploymentResponse{Deployment: d}, err
}

func (f *fakeScheduler) ListDeployments(_ context.Context, req *schedulerv1.ListDeploymentsRequest) (*schedulerv1.ListDeploymentsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	res := &schedulerv1.ListDeploymentsResponse{}
	for _, d := range f.deployments {
		if d.GetOperatorId() == req.GetPrincipal().GetOperatorId() {
			res.Deployments = append(res.Deployments, proto.CloneOf(d))
		}
	}
	return res, f.fails
}

func (f *fakeScheduler) ListLogs(_ context.Context, req *schedulerv1.ListLogsRequest) (*schedulerv1.ListLogsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.find(req.GetPrincipal(), req.GetId())
	return &schedulerv1.ListLogsResponse{Logs: f.logs}, err
}

func (f *fakeScheduler) RestartDeployment(_ context.Context, req *schedulerv1.RestartDeploymentRequest) (*schedulerv1.RestartDeploymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.find(req.GetPrincipal(), req.GetId())
	return &schedulerv1.RestartDeploymentResponse{Deployment: d}, err
}

func (f *fakeScheduler) ResolveApp(_ context.Context, req *schedulerv1.ResolveAppRequest) (*schedulerv1.ResolveAppResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, d := range f.deployments {
		if id == req.GetApp() || d.GetSubdomain() == req.GetApp() {
			d, err := f.find(req.GetPrincipal(), id)
			return &schedulerv1.ResolveAppResponse{Deployment: d}, err
		}
	}
	return nil, problem.NotFound("App not found.")
}

func (f *fakeScheduler) ScaleDeployment(_ context.Context, req *schedulerv1.ScaleDeploymentRequest) (*schedulerv1.ScaleDeploymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.find(req.GetPrincipal(), req.GetId())
	if err != nil {
		return nil, err
	}
	if req.GetCount() == 0 {
		return nil, problem.InvalidState("Stop it.")
	}
	d.Instances = uint32(req.GetCount())
	f.deployments[req.GetId()] = d
	return &schedulerv1.ScaleDeploymentResponse{Deployment: d}, nil
}

// RollbackDeployment has one release to roll back to, the first.
func (f *fakeScheduler) RollbackDeployment(_ context.Context, req *schedulerv1.RollbackDeploymentRequest) (*schedulerv1.RollbackDeploymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.find(req.GetPrincipal(), req.GetId())
	if err != nil {
		return nil, err
	}
	if req.ReleaseNumber != nil && req.GetReleaseNumber() != 1 {
		return nil, problem.InvalidState(fmt.Sprintf("There is no release %d.", req.GetReleaseNumber()))
	}
	d.ReleaseNumber = 3
	return &schedulerv1.RollbackDeploymentResponse{Deployment: d, RolledBackTo: 1}, nil
}

func (f *fakeScheduler) ListReleases(_ context.Context, req *schedulerv1.ListReleasesRequest) (*schedulerv1.ListReleasesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(req.GetPrincipal(), req.GetId()); err != nil {
		return nil, err
	}
	out := &schedulerv1.ListReleasesResponse{}
	for n := uint32(3); n > 0; n-- {
		out.Releases = append(out.Releases, &schedulerv1.Release{Number: n, Image: "ghcr.io/a/b:1", ConfigNumber: 1, Status: "superseded",
			CreatedBy: "app-1", CreatedAt: timestamppb.New(time.Date(2026, 5, 21, 10, 0, 0, 123456789, time.UTC))})
	}
	return out, nil
}

func (f *fakeScheduler) StopDeployment(_ context.Context, req *schedulerv1.StopDeploymentRequest) (*schedulerv1.StopDeploymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.find(req.GetPrincipal(), req.GetId())
	return &schedulerv1.StopDeploymentResponse{Deployment: d}, err
}

func (f *fakeScheduler) DestroyDeployment(_ context.Context, req *schedulerv1.DestroyDeploymentRequest) (*schedulerv1.DestroyDeploymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.find(req.GetPrincipal(), req.GetId())
	return &schedulerv1.DestroyDeploymentResponse{Deployment: d}, err
}

func (f *fakeScheduler) set(change func(*fakeScheduler)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

type fakeTiers struct {
	billingv1.UnimplementedTierServiceServer
}

func (fakeTiers) ListTiers(context.Context, *billingv1.ListTiersRequest) (*billingv1.ListTiersResponse, error) {
	cost := uint32(500)
	return &billingv1.ListTiersResponse{Tiers: []*billingv1.Tier{{
		Id: "tier-1", Name: "Buddo Starter", Slug: "buddo-starter", PaymentMethod: "buddo_points", MonthlyCostPoints: &cost,
		MemoryLimitMb: 256, CpuLimitMillicores: 250, AdReachMultiplier: 1.5,
	}}}, nil
}

// stage is a gateway that runs in front of fakes.
type stage struct {
	url       string
	address   string
	service   *gateway.Service
	store     *memory.Store
	scheduler *fakeScheduler
	// schedulerClient is for another gateway before the same scheduler.
	schedulerClient schedulerv1.SchedulerServiceClient
	admin           *fakeAdmin
	identity        *fakeIdentity
	services        map[string]bool
	stop            context.CancelFunc
	stopped         chan error
}

func begin(t testing.TB, change ...func(*gateway.Config, *gateway.Deps)) *stage {
	t.Helper()
	s := &stage{
		store: memory.New(), scheduler: &fakeScheduler{deployments: map[string]*schedulerv1.Deployment{}},
		admin: &fakeAdmin{}, identity: &fakeIdentity{}, services: map[string]bool{"scheduler": true, "identity": true}, stopped: make(chan error, 1),
	}
	log := slog.New(slog.DiscardHandler)
	inside, err := rpc.NewMemory(log)
	if err != nil {
		t.Fatal(err)
	}
	schedulerv1.RegisterSchedulerServiceServer(inside, s.scheduler)
	adminv1.RegisterAdminServiceServer(inside, s.admin)
	billingv1.RegisterTierServiceServer(inside, fakeTiers{})
	dnsv1.RegisterDNSAdminServiceServer(inside, fakeDNS{})
	identityv1.RegisterIdentityServiceServer(inside, s.identity)

	config := gateway.Config{Listen: "127.0.0.1:0", Heartbeat: 50 * time.Millisecond}
	s.schedulerClient = schedulerv1.NewSchedulerServiceClient(inside.Conn())
	deps := gateway.Deps{
		Scheduler:        s.schedulerClient,
		Admin:            adminv1.NewAdminServiceClient(inside.Conn()),
		Tiers:            billingv1.NewTierServiceClient(inside.Conn()),
		Identity:         identityv1.NewIdentityServiceClient(inside.Conn()),
		Accounts:         identityv1.NewAccountServiceClient(inside.Conn()),
		Orgs:             identityv1.NewOrgServiceClient(inside.Conn()),
		OAuth:            identityv1.NewOAuthServiceClient(inside.Conn()),
		APIKeys:          identityv1.NewApiKeyServiceClient(inside.Conn()),
		EventCredentials: identityv1.NewEventCredentialServiceClient(inside.Conn()),
		Webhooks:         webhooksv1.NewWebhookServiceClient(inside.Conn()),
		Store:            s.store, Services: func() map[string]bool { return s.services }, Version: "1.2.3", Log: log,
		Domains: domainv1.NewDomainServiceClient(inside.Conn()),
		DNS:     dnsv1.NewDNSAdminServiceClient(inside.Conn()),
	}
	for _, c := range change {
		c(&config, &deps)
	}
	if s.service, err = gateway.New(config, deps); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.stopped <- s.service.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-s.stopped:
			if err != nil {
				t.Errorf("the gateway did not stop cleanly: %v", err)
			}
		case <-time.After(patience):
			t.Error("the gateway did not stop")
		}
		_ = inside.Close()
	})
	eventually(t, "the gateway is ready", func() bool { return s.service.Ready() == nil })
	s.address = s.service.Address()
	s.url = "http://" + s.address
	return s
}

// patience bounds only tests that fail: on a machine that does other work as well, what
// takes milliseconds may take many seconds.
const patience = time.Minute

// eventually polls until what is said is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("never so: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// happen writes facts of the owner's deployment to the log.
func (s *stage) happen(t testing.TB, id string, payloads ...proto.Message) (last uint64) {
	t.Helper()
	for _, p := range payloads {
		var err error
		last, err = s.store.Record(t.Context(), eventstore.Event{
			Aggregate: subjects.Of("default", subjects.Deployment, id), ID: uuid.NewString(), Payload: p,
			Time: time.Date(2026, 5, 21, 10, 0, 0, 0, time.UTC), Source: "test", Actor: "app-1",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// requested is the owner's new deployment, in the log and at the scheduler.
func (s *stage) requested(t testing.TB) (id string) {
	t.Helper()
	id = uuid.NewString()
	sequence := s.happen(t, id, &deploymentv1.DeploymentRequested{
		DeploymentId: id, OrgId: "default", OperatorId: "op-1", AppId: "app-1", Subdomain: "my-app",
		Release: &deploymentv1.Release{Id: "r1", Number: 1, Image: "ghcr.io/a/b:1", Env: &deploymentv1.SealedEnv{Names: []string{"KEY"}, Ciphertext: []byte("planted-secret")}},
	})
	s.scheduler.set(func(f *fakeScheduler) {
		f.deployments[id] = &schedulerv1.Deployment{
			Id: id, OrgId: "default", OperatorId: "op-1", AppId: "app-1", TierId: "tier-1", Subdomain: "my-app", Status: "pending",
			HealthStatus: "unknown", BillingStatus: "active", ContainerName: "my-app-1", ContainerImage: "ghcr.io/a/b:1",
			MemoryLimitMb: 256, CpuLimitMillicores: 250, Sequence: sequence,
			InsertedAt: timestamppb.New(time.Date(2026, 5, 21, 10, 0, 0, 123456789, time.UTC)),
		}
	})
	return id
}

type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) json(t testing.TB) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(r.body), &out); err != nil {
		t.Fatalf("%q is no JSON object: %v", r.body, err)
	}
	return out
}

// call sends a request as the owner; headers are "Name: value" and may take the
// token's place.
func (s *stage) call(t testing.TB, method, path, body string, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+ownerToken)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if req.Header.Del(name); value != "" {
			req.Header.Set(name, value)
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(text)}
}

// clock is set by hand.
type clock struct{ nanoseconds atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanoseconds.Store(time.Date(2026, 5, 21, 10, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanoseconds.Load()) }
func (c *clock) advance(d time.Duration) { c.nanoseconds.Add(int64(d)) }
