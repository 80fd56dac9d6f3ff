package identity_test

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/caller"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/services/identity"
)

// clock is virtual: it stands still until it is set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func sealer(t *testing.T) *seal.Sealer {
	t.Helper()
	master, err := seal.Master(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	return seal.New(master, seal.NewMemory())
}

// world is identity as the gateway reaches it.
type world struct {
	t        *testing.T
	clock    *clock
	store    *memory.Store
	sealer   *seal.Sealer
	config   identity.Config
	service  *identity.Service
	identity identityv1.IdentityServiceClient
	accounts identityv1.AccountServiceClient
	orgs     identityv1.OrgServiceClient
	keys     identityv1.ApiKeyServiceClient
	oauth    identityv1.OAuthServiceClient

	eventCredentials identityv1.EventCredentialServiceClient
}

func begin(t *testing.T, config identity.Config) *world {
	t.Helper()
	w := &world{t: t, store: memory.New(), sealer: sealer(t), config: config, clock: &clock{now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}}
	w.start()
	return w
}

// restart is another process on the same log and keys.
func (w *world) restart() *world {
	w.t.Helper()
	again := *w
	again.start()
	return &again
}

func (w *world) start() {
	t := w.t
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := identity.New(w.config, identity.Deps{Store: w.store, Seal: w.sealer, Now: w.clock.Now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	inside, err := rpc.NewMemory(log)
	if err != nil {
		t.Fatal(err)
	}
	s.Register(inside)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- inside.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; _ = inside.Close() })
	w.service, w.identity = s, identityv1.NewIdentityServiceClient(inside.Conn())
	w.accounts, w.orgs = identityv1.NewAccountServiceClient(inside.Conn()), identityv1.NewOrgServiceClient(inside.Conn())
	w.keys, w.oauth = identityv1.NewApiKeyServiceClient(inside.Conn()), identityv1.NewOAuthServiceClient(inside.Conn())
	w.eventCredentials = identityv1.NewEventCredentialServiceClient(inside.Conn())
}

// who asks, as the gateway does, who a credential speaks for.
func (w *world) who(token, org string) (*identityv1.Principal, int) {
	w.t.Helper()
	hash := sha256.Sum256([]byte(token))
	res, err := w.identity.Authenticate(w.t.Context(), &identityv1.AuthenticateRequest{TokenSha256: hash[:], OrgId: org})
	return res.GetPrincipal(), status(err)
}

// as calls with a credential, for an organization that may be empty.
func (w *world) as(token, org string) context.Context {
	w.t.Helper()
	p, code := w.who(token, org)
	if code != 200 {
		w.t.Fatalf("the credential is not valid: %d", code)
	}
	return w.by(p)
}

func (w *world) by(p *identityv1.Principal) context.Context {
	w.t.Helper()
	ctx, err := caller.Outgoing(w.t.Context(), p)
	if err != nil {
		w.t.Fatal(err)
	}
	return ctx
}

const goodPassword = "correct horse"

// register makes an account and returns it with its token.
func (w *world) register(name string) (*identityv1.User, string) {
	w.t.Helper()
	res, err := w.accounts.Register(w.t.Context(), &identityv1.RegisterRequest{Email: name + "@example.com", Password: goodPassword, Name: name})
	if err != nil {
		w.t.Fatalf("%s cannot register: %v", name, err)
	}
	return res.GetUser(), res.GetToken()
}

// login returns a token, or the problem's status and code.
func (w *world) login(name, password, code string) (token string, status int, problemCode string) {
	w.t.Helper()
	res, err := w.accounts.Login(w.t.Context(), &identityv1.LoginRequest{Email: name + "@example.com", Password: password, Code: code})
	if err != nil {
		p := problem.From(err)
		return "", p.Status, p.Code
	}
	return res.GetToken(), 200, ""
}

func status(err error) int {
	if err == nil {
		return 200
	}
	return problem.From(err).Status
}
