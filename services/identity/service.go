// Package identity owns operators and the access tokens that speak for them. It
// answers IdentityService from a fold of the log in memory.
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
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
	return &Service{deps: d, known: newDirectory()}, nil
}

// Register puts IdentityService on a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) { identityv1.RegisterIdentityServiceServer(r, s) }

// Run follows the log until ctx ends and then returns nil.
func (s *Service) Run(ctx context.Context) error {
	handle := func(_ context.Context, events []eventstore.Recorded) error {
		s.known.apply(events)
		return nil
	}
	ready := func() {
		s.caughtUp.Store(true)
		s.deps.Log.InfoContext(ctx, "knows all operators")
	}
	if err := s.deps.Store.Follow(ctx, 0, handle, ready, subjects.KindFilter(subjects.Operator)); err != nil {
		return fmt.Errorf("follow the operators' events: %w", err)
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

// Authenticate answers who the token speaks for. Errors: UNAUTHENTICATED for a
// token that is nobody's, UNAVAILABLE until the log has been read.
func (s *Service) Authenticate(_ context.Context, req *identityv1.AuthenticateRequest) (*identityv1.AuthenticateResponse, error) {
	if err := s.Ready(); err != nil {
		return nil, problem.Unavailable("Slipway is starting and does not know its operators yet; try again in a second.", time.Second)
	}
	state, ok := s.known.find(req.GetTokenSha256())
	if !ok {
		return nil, problem.Unauthorized("The access token is not valid; use the one in credentials.json.")
	}
	return &identityv1.AuthenticateResponse{Principal: &identityv1.Principal{
		OperatorId: state.ID, OrgId: state.OrgID, AppId: state.AppID, Scopes: state.Scopes,
	}}, nil
}

func (s *Service) event(a subjects.Aggregate, id string, payload proto.Message) eventstore.Event {
	return eventstore.Event{Aggregate: a, ID: id, Payload: payload, Time: s.deps.Now().UTC(), Source: "identity"}
}
