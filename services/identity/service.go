// Package identity owns operators and the access tokens that speak for them. It
// answers IdentityService from a fold of the log in memory.
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/apikey"
	"github.com/slipway-paas/slipway/services/identity/credential"
	"github.com/slipway-paas/slipway/services/identity/mail"
	"github.com/slipway-paas/slipway/services/identity/oauth"
	"github.com/slipway-paas/slipway/services/identity/operator"
	"github.com/slipway-paas/slipway/services/identity/org"
	"github.com/slipway-paas/slipway/services/identity/password"
)

// Deps are what the service stands on.
type Deps struct {
	Store eventstore.Store
	// Seal keeps personal data and secrets unreadable in the log.
	Seal *seal.Sealer
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	Log *slog.Logger
}

// Service knows who a token speaks for.
type Service struct {
	identityv1.UnimplementedIdentityServiceServer
	config    Config
	deps      Deps
	known     *directory
	oauth     *oauth.Server
	caughtUp  atomic.Bool
	secrets   *secrets
	passwords *password.Hasher
	guesses   *guesses
	mails     *mail.Queue
	errands   chan func(context.Context) error
	eraser    *eraser
	operators *decider.Handler[operator.State, operator.Command]
	orgs      *decider.Handler[org.State, org.Command]
	keys      *decider.Handler[apikey.State, apikey.Command]
	uses      *uses
}

// New makes the service; Run fills it.
func New(c Config, d Deps) (*Service, error) {
	if d.Store == nil || d.Seal == nil || d.Log == nil {
		return nil, errors.New("identity needs an event store, a sealer and a logger")
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	c = c.withDefaults()
	s := &Service{
		config: c, deps: d, known: newDirectory(), secrets: &secrets{sealer: d.Seal},
		passwords: password.NewHasher(hashedAtOnce, hashWaiting), guesses: newGuesses(), mails: mail.NewQueue(c.SMTP, d.Log), uses: newUses(d.Now),
		errands:   make(chan func(context.Context) error, maxLater),
		operators: decider.NewHandler(d.Store, operator.Decider(), options[operator.State](d)),
		orgs:      decider.NewHandler(d.Store, org.Decider(), options[org.State](d)),
		keys:      decider.NewHandler(d.Store, apikey.Decider(), options[apikey.State](d)),
	}
	s.eraser = newEraser(d.Seal.Destroy, func(a subjects.Aggregate, err error) {
		d.Log.Error("the data key of what was deleted is still there; trying again", "aggregate", a.String(), "error", err)
	})
	s.oauth = oauth.New(oauth.Deps{
		Store: d.Store, Known: s.known.oauth, Ready: s.Ready, Wait: s.known.wait, People: people{s.known}, Now: d.Now, Log: d.Log,
	})
	return s, nil
}

const (
	// hashedAtOnce bounds passwords that are hashed at once: 19 MiB each.
	hashedAtOnce = 4
	// hashWaiting bounds those that wait for their turn.
	hashWaiting = 64
	// cached is how many folded aggregates of a kind are kept for commands.
	cached = 1024
)

func options[S any](d Deps) decider.Options[S] {
	return decider.Options[S]{Source: "identity", Now: func() time.Time { return d.Now().UTC() }, NewID: newID, CacheSize: cached}
}

// Register puts identity's services on a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	identityv1.RegisterIdentityServiceServer(r, s)
	identityv1.RegisterAccountServiceServer(r, accounts{Service: s})
	identityv1.RegisterOrgServiceServer(r, orgs{Service: s})
	identityv1.RegisterApiKeyServiceServer(r, keys{Service: s})
	identityv1.RegisterOAuthServiceServer(r, s.oauth)
}

// sweepEvery is how often credentials that have ended by themselves are forgotten.
const sweepEvery = 10 * time.Second

func (s *Service) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.known.sweep(s.deps.Now())
			if s.caughtUp.Load() {
				s.known.oauth.Sweep(s.deps.Now())
			}
		}
	}
}

// Run follows the log until ctx ends and then returns nil.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	parts.Go(func() { s.sweep(ctx) })
	parts.Go(func() { s.mails.Run(ctx) })
	parts.Go(func() { s.runErrands(ctx) })
	parts.Go(func() { s.eraser.run(ctx) })
	parts.Go(func() { s.noteUses(ctx) })
	handle := func(_ context.Context, events []eventstore.Recorded) error {
		s.known.apply(events)
		s.eraser.note(events)
		return nil
	}
	ready := func() {
		s.caughtUp.Store(true)
		s.deps.Log.InfoContext(ctx, "knows all operators and credentials")
	}
	if err := s.deps.Store.Follow(ctx, 0, handle, ready, filters()...); err != nil {
		return fmt.Errorf("follow identity's events: %w", err)
	}
	return nil
}

// Ready is nil once every operator in the log is known.
func (s *Service) Ready() error {
	if !s.caughtUp.Load() {
		return errors.New("identity is still reading the log")
	}
	return nil
}

// Authenticate answers who a credential speaks for, in which organization and with
// which scopes. Errors: UNAUTHENTICATED for one that is nobody's or has ended,
// PERMISSION_DENIED when it does not speak for the organization that was asked for,
// UNAVAILABLE until the log has been read.
func (s *Service) Authenticate(_ context.Context, req *identityv1.AuthenticateRequest) (*identityv1.AuthenticateResponse, error) {
	if err := s.Ready(); err != nil {
		return nil, starting()
	}
	f, ok := s.known.find(req.GetTokenSha256(), req.GetOrgId(), s.deps.Now())
	if !ok {
		return nil, problem.Unauthorized("The credential is not valid, or no longer; log in again, or use another.")
	}
	if asked := req.GetOrgId(); f.role == "" || asked != "" && asked != f.org {
		return nil, problem.Forbidden("This credential does not speak for that organization; name one that you are a member of in Slipway-Org, or leave the header out.")
	}
	p := &identityv1.Principal{
		OperatorId: f.operator.ID, OrgId: f.org, AppId: f.App, Kind: f.Kind, Role: f.role, CredentialId: f.issuer.ID,
		Scopes: access.Effective(f.Scopes, f.role, f.operator.Admin),
	}
	if f.Kind == credential.APIKey {
		s.uses.used(f.issuer)
	}
	if !f.Expires.IsZero() {
		p.ExpiresAt = timestamppb.New(f.Expires)
	}
	return &identityv1.AuthenticateResponse{Principal: p}, nil
}

func (s *Service) event(a subjects.Aggregate, id string, payload proto.Message) eventstore.Event {
	return eventstore.Event{Aggregate: a, ID: id, Payload: payload, Time: s.deps.Now().UTC(), Source: "identity"}
}
