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
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/oauth"
)

// Deps are what the service stands on.
type Deps struct {
	Store eventstore.Store
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	Log *slog.Logger
}

// Service knows who a token speaks for.
type Service struct {
	identityv1.UnimplementedIdentityServiceServer
	deps     Deps
	known    *directory
	oauth    *oauth.Server
	caughtUp atomic.Bool
}

// New makes the service; Run fills it.
func New(d Deps) (*Service, error) {
	if d.Store == nil || d.Log == nil {
		return nil, errors.New("identity needs an event store and a logger")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	s := &Service{deps: d, known: newDirectory()}
	s.oauth = oauth.New(oauth.Deps{
		Store: d.Store, Known: s.known.oauth, Ready: s.Ready, Wait: s.known.wait, People: people{s.known}, Now: d.Now, Log: d.Log,
	})
	return s, nil
}

// Register puts identity's services on a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	identityv1.RegisterIdentityServiceServer(r, s)
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
	handle := func(_ context.Context, events []eventstore.Recorded) error {
		s.known.apply(events)
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
		return nil, problem.Unavailable("Slipway is starting and does not know its operators yet; try again in a second.", time.Second)
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
	if !f.Expires.IsZero() {
		p.ExpiresAt = timestamppb.New(f.Expires)
	}
	return &identityv1.AuthenticateResponse{Principal: p}, nil
}

func (s *Service) event(a subjects.Aggregate, id string, payload proto.Message) eventstore.Event {
	return eventstore.Event{Aggregate: a, ID: id, Payload: payload, Time: s.deps.Now().UTC(), Source: "identity"}
}
