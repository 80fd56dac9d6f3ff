// Package oauth answers OAuthService: it runs the commands of apps, grants and devices
// against the log, and finds them again by what clients and people present. It speaks no
// OAuth on the wire; the gateway does.
package oauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/device"
	"github.com/slipway-paas/slipway/services/identity/grant"
	"github.com/slipway-paas/slipway/services/identity/oauthapp"
)

const (
	source = "identity"
	// knownWithin bounds how long an answer waits until what it says can be looked up.
	knownWithin = 2 * time.Second
	cached      = 1024
)

// People says what the accounts and organizations say of those who consent.
type People interface {
	// Grantable are the scopes that somebody may pass on to an app, in the org of the
	// principal.
	Grantable(p *identityv1.Principal) []string
	// PasswordEpoch counts the changes of an operator's password.
	PasswordEpoch(operatorID string) uint32
	// Stands reports whether the operator is still a member of the org, with the
	// password of that epoch.
	Stands(operatorID, orgID string, epoch uint32) bool
}

// Deps are what the server stands on.
type Deps struct {
	Store eventstore.Store
	// Known is folded by who follows the log; Ready is nil once it holds all of it, and
	// Wait waits until it holds the event with that sequence.
	Known  *Directory
	Ready  func() error
	Wait   func(ctx context.Context, sequence uint64) error
	People People
	Now    func() time.Time
	Log    *slog.Logger
}

// Server keeps apps and grants.
type Server struct {
	identityv1.UnimplementedOAuthServiceServer
	deps    Deps
	known   *Directory
	apps    *decider.Handler[oauthapp.State, oauthapp.Command]
	grants  *decider.Handler[grant.State, grant.Command]
	devices *decider.Handler[device.State, device.Command]

	mu sync.Mutex
	// asked is when each device that waits has last asked for its tokens.
	asked map[string]time.Time
}

// New makes a server.
func New(d Deps) *Server {
	newID := func() string { return uuid.Must(uuid.NewV7()).String() }
	return &Server{
		deps: d, known: d.Known, asked: map[string]time.Time{},
		apps:    decider.NewHandler(d.Store, oauthapp.Decider(), decider.Options[oauthapp.State]{Source: source, Now: d.Now, NewID: newID}),
		grants:  decider.NewHandler(d.Store, grant.Decider(), decider.Options[grant.State]{Source: source, Now: d.Now, NewID: newID, CacheSize: cached}),
		devices: decider.NewHandler(d.Store, device.Decider(), decider.Options[device.State]{Source: source, Now: d.Now, NewID: newID}),
	}
}

// find is the client, registered or the command line.
func (s *Server) find(clientID string) (oauthapp.State, error) {
	if err := s.deps.Ready(); err != nil {
		return oauthapp.State{}, problem.Unavailable("Slipway is starting and does not know its OAuth apps yet; try again in a second.", time.Second)
	}
	if clientID == oauthapp.CommandLine {
		return oauthapp.State{ClientID: clientID, OrgID: subjects.Platform, Name: "slipway, the command line", Scopes: access.Scopes()}, nil
	}
	app, _ := s.known.app(clientID)
	if !app.Exists() {
		return oauthapp.State{}, problem.NotFound("There is no app with this client_id.")
	}
	return app, nil
}

// wait lets who asks next find what was just written.
func (s *Server) wait(ctx context.Context, sequence uint64) {
	ctx, cancel := context.WithTimeout(ctx, knownWithin)
	defer cancel()
	if err := s.deps.Wait(ctx, sequence); err != nil {
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
