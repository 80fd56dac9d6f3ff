// Package oauth answers OAuthService: it runs the commands of apps, grants and devices
// against the log, and finds them again by what clients and people present. It speaks no
// OAuth on the wire; the gateway does.
package oauth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/device"
	"github.com/slipway-paas/slipway/services/identity/grant"
	"github.com/slipway-paas/slipway/services/identity/oauthapp"
	"github.com/slipway-paas/slipway/services/identity/scope"
)

const (
	source = "identity"
	// knownWithin bounds how long an answer waits until what it says can be looked up.
	knownWithin = 2 * time.Second
	sweepPeriod = time.Minute
	cached      = 1024
)

// Authority says which scopes somebody may pass on to an app, for the org in the
// principal.
type Authority interface {
	Grantable(p *identityv1.Principal) []string
}

// Deps are what the server stands on.
type Deps struct {
	Store     eventstore.Store
	Authority Authority
	Now       func() time.Time
	Log       *slog.Logger
}

// Server keeps apps and grants.
type Server struct {
	identityv1.UnimplementedOAuthServiceServer
	deps     Deps
	known    *directory
	apps     *decider.Handler[oauthapp.State, oauthapp.Register]
	grants   *decider.Handler[grant.State, grant.Command]
	devices  *decider.Handler[device.State, device.Command]
	caughtUp atomic.Bool

	mu sync.Mutex
	// asked is when each device that waits has last asked for its tokens.
	asked map[string]time.Time
}

// New makes a server that answers once Run has read the log.
func New(d Deps) *Server {
	newID := func() string { return uuid.Must(uuid.NewV7()).String() }
	return &Server{
		deps: d, known: newDirectory(), asked: map[string]time.Time{},
		apps:    decider.NewHandler(d.Store, oauthapp.Decider(), decider.Options[oauthapp.State]{Source: source, Now: d.Now, NewID: newID}),
		grants:  decider.NewHandler(d.Store, grant.Decider(), decider.Options[grant.State]{Source: source, Now: d.Now, NewID: newID, CacheSize: cached}),
		devices: decider.NewHandler(d.Store, device.Decider(), decider.Options[device.State]{Source: source, Now: d.Now, NewID: newID}),
	}
}

// Run follows the log until ctx ends and then returns nil.
func (s *Server) Run(ctx context.Context) error {
	handle := func(_ context.Context, events []eventstore.Recorded) error {
		s.known.apply(events)
		return nil
	}
	var sweeping sync.WaitGroup
	sweeping.Go(func() { s.sweep(ctx) })
	defer sweeping.Wait()
	err := s.deps.Store.Follow(ctx, 0, handle, func() { s.caughtUp.Store(true) },
		subjects.KindFilter(subjects.OAuthApp), subjects.KindFilter(subjects.Grant), subjects.KindFilter(subjects.Device))
	if err != nil {
		return fmt.Errorf("follow the events of OAuth apps and grants: %w", err)
	}
	return nil
}

func (s *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !s.caughtUp.Load() {
			continue
		}
		now := s.deps.Now()
		s.known.sweep(now.Add(-slack))
		s.mu.Lock()
		for id, at := range s.asked {
			if now.Sub(at) > device.For {
				delete(s.asked, id)
			}
		}
		s.mu.Unlock()
	}
}

// Ready is nil once all apps and grants in the log are known.
func (s *Server) Ready() error {
	if !s.caughtUp.Load() {
		return errors.New("identity is still reading the log of OAuth apps")
	}
	return nil
}

// Find says who an access token speaks for, and until when.
func (s *Server) Find(hash []byte) (p *identityv1.Principal, until time.Time, ok bool) {
	if len(hash) != sha256.Size {
		return nil, time.Time{}, false
	}
	_, g, access, ok := s.known.access(grant.Hash(hash), s.deps.Now())
	if !ok {
		return nil, time.Time{}, false
	}
	return &identityv1.Principal{OperatorId: g.OperatorID, OrgId: g.OrgID, AppId: g.ClientID, Scopes: access.Scopes}, access.ExpiresAt, true
}

// find is the client, registered or the command line.
func (s *Server) find(clientID string) (oauthapp.State, error) {
	if err := s.Ready(); err != nil {
		return oauthapp.State{}, problem.Unavailable("Slipway is starting and does not know its OAuth apps yet; try again in a second.", time.Second)
	}
	if clientID == oauthapp.CommandLine {
		return oauthapp.State{ClientID: clientID, OrgID: subjects.Platform, Name: "slipway, the command line", Scopes: scope.All()}, nil
	}
	app, ok := s.known.app(clientID)
	if !ok {
		return oauthapp.State{}, problem.NotFound("There is no app with this client_id.")
	}
	return app, nil
}

// wait lets who asks next find what was just written.
func (s *Server) wait(ctx context.Context, sequence uint64) {
	ctx, cancel := context.WithTimeout(ctx, knownWithin)
	defer cancel()
	if err := s.known.wait(ctx, sequence); err != nil {
		s.deps.Log.WarnContext(ctx, "answering before the log has come back", "sequence", sequence, "error", err)
	}
}

// failed makes an error of the log one for callers.
func (s *Server) failed(ctx context.Context, doing string, err error) error {
	var p *problem.Error
	if errors.As(err, &p) {
		return p
	}
	s.deps.Log.ErrorContext(ctx, "could not "+doing, "error", err)
	if errors.Is(err, eventstore.ErrUnavailable) || errors.Is(err, eventstore.ErrConflict) {
		return problem.Unavailable("The event log does not answer at the moment; try again in a second.", time.Second)
	}
	return problem.From(err)
}

func command[C any](ctx context.Context, a subjects.Aggregate, actor string, c C) decider.Command[C] {
	return decider.Command[C]{Aggregate: a, Command: c, Actor: actor, TraceParent: observe.TraceParent(ctx)}
}

func checkPrincipal(p *identityv1.Principal) error {
	if p.GetOperatorId() == "" || !subjects.ValidToken(p.GetOrgId()) {
		return problem.Unauthorized("Sign in first.")
	}
	return nil
}

func refused(status int, code, message string) error {
	return &problem.Error{Status: status, Code: code, Message: message}
}

// invalidClient says the same of a client that there is not and of a wrong secret.
func invalidClient() error {
	return refused(http.StatusUnauthorized, "invalid_client", "The client_id or client_secret is not right.")
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
