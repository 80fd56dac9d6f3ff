package oauth

import (
	"context"
	"net/http"
	"strings"

	"github.com/google/uuid"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/oauthapp"
	"github.com/slipway-paas/slipway/services/identity/scope"
)

// RegisterApp implements identityv1.OAuthServiceServer.
func (s *Server) RegisterApp(ctx context.Context, req *identityv1.RegisterAppRequest) (*identityv1.RegisterAppResponse, error) {
	p := req.GetPrincipal()
	if err := checkPrincipal(p); err != nil {
		return nil, err
	}
	id := uuid.Must(uuid.NewV7()).String()
	c := oauthapp.Register{
		ClientID: id, OrgID: p.GetOrgId(), OperatorID: p.GetOperatorId(), Name: req.GetName(),
		RedirectURIs: req.GetRedirectUris(), Scopes: req.GetScopes(), Grantable: s.deps.People.Grantable(p),
	}
	var secret string
	if req.GetConfidential() {
		text, hash := newSecret(prefixSecret)
		secret, c.SecretSHA256 = text, hash[:]
	}
	done, err := s.apps.Handle(ctx, command[oauthapp.Command](ctx, subjects.Of(p.GetOrgId(), subjects.OAuthApp, id), p.GetOperatorId(), c))
	if err != nil {
		return nil, s.failed(ctx, "register an app", err)
	}
	s.wait(ctx, done.Sequence)
	return &identityv1.RegisterAppResponse{App: shown(done.State), ClientSecret: secret}, nil
}

// GetApp implements identityv1.OAuthServiceServer.
func (s *Server) GetApp(_ context.Context, req *identityv1.GetAppRequest) (*identityv1.GetAppResponse, error) {
	app, err := s.find(req.GetClientId())
	if p := req.GetPrincipal(); p != nil {
		app, err = s.ofOrg(p, req.GetClientId())
	}
	if err != nil {
		return nil, err
	}
	return &identityv1.GetAppResponse{App: shown(app)}, nil
}

// ofOrg is the client when it is the principal's organization's; to others there is none.
func (s *Server) ofOrg(p *identityv1.Principal, clientID string) (oauthapp.State, error) {
	app, err := s.find(clientID)
	if err == nil && p.GetOrgId() != app.OrgID {
		err = problem.NotFound("There is no app with this client_id.")
	}
	return app, err
}

// ListApps implements identityv1.OAuthServiceServer.
func (s *Server) ListApps(_ context.Context, req *identityv1.ListAppsRequest) (*identityv1.ListAppsResponse, error) {
	if err := checkPrincipal(req.GetPrincipal()); err != nil {
		return nil, err
	}
	res := &identityv1.ListAppsResponse{}
	for _, app := range s.known.appsOf(req.GetPrincipal().GetOrgId()) {
		res.Apps = append(res.Apps, shown(app))
	}
	return res, nil
}

// RotateAppSecret implements identityv1.OAuthServiceServer.
func (s *Server) RotateAppSecret(ctx context.Context, req *identityv1.RotateAppSecretRequest) (*identityv1.RotateAppSecretResponse, error) {
	secret, hash := newSecret(prefixSecret)
	app, err := s.changeApp(ctx, req.GetPrincipal(), req.GetClientId(), "rotate an app's secret", oauthapp.RotateSecret{SecretSHA256: hash[:]})
	if err != nil {
		return nil, err
	}
	return &identityv1.RotateAppSecretResponse{App: shown(app), ClientSecret: secret}, nil
}

// DeleteApp implements identityv1.OAuthServiceServer.
func (s *Server) DeleteApp(ctx context.Context, req *identityv1.DeleteAppRequest) (*identityv1.DeleteAppResponse, error) {
	if _, err := s.changeApp(ctx, req.GetPrincipal(), req.GetClientId(), "delete an app", oauthapp.Delete{}); err != nil {
		return nil, err
	}
	return &identityv1.DeleteAppResponse{}, nil
}

func (s *Server) changeApp(ctx context.Context, p *identityv1.Principal, clientID, doing string, c oauthapp.Command) (oauthapp.State, error) {
	if err := checkPrincipal(p); err != nil {
		return oauthapp.State{}, err
	}
	app, err := s.ofOrg(p, clientID)
	if err != nil {
		return oauthapp.State{}, err
	}
	if app.OperatorID != p.GetOperatorId() && !access.AtLeast(p.GetRole(), access.RoleAdmin) {
		return oauthapp.State{}, problem.Forbidden("Only who registered an app, and the organization's admins and owners, may change it.")
	}
	done, err := s.apps.Handle(ctx, command(ctx, subjects.Of(app.OrgID, subjects.OAuthApp, app.ClientID), p.GetOperatorId(), c))
	if err != nil {
		return oauthapp.State{}, s.failed(ctx, doing, err)
	}
	s.wait(ctx, done.Sequence)
	return done.State, nil
}

// VerifyClient implements identityv1.OAuthServiceServer.
func (s *Server) VerifyClient(_ context.Context, req *identityv1.VerifyClientRequest) (*identityv1.VerifyClientResponse, error) {
	app, err := s.find(req.GetClientId())
	if err != nil {
		if problem.From(err).Status == http.StatusNotFound {
			err = invalidClient()
		}
		return nil, err
	}
	if !app.Authentic(req.GetClientSecret()) {
		return nil, invalidClient()
	}
	return &identityv1.VerifyClientResponse{App: shown(app)}, nil
}

// mayGrant refuses scopes that the app did not register or that who consents cannot
// give away.
func (s *Server) mayGrant(p *identityv1.Principal, app oauthapp.State, scopes []string) error {
	invalid := func(message string) error { return refused(http.StatusBadRequest, "invalid_scope", message) }
	switch {
	case len(scopes) == 0:
		return invalid("The app asks for nothing; it must name a scope.")
	case !scope.Within(scopes, app.Scopes):
		return invalid("The app asks for more than it has registered.")
	case !scope.Within(scopes, s.deps.People.Grantable(p)):
		return invalid("You cannot give this app what it asks for (" + strings.Join(scopes, ", ") + "), because you do not have all of it yourself.")
	}
	return nil
}

func shown(app oauthapp.State) *identityv1.OAuthApp {
	return &identityv1.OAuthApp{
		ClientId: app.ClientID, OrgId: app.OrgID, Name: app.Name, RedirectUris: app.RedirectURIs,
		Confidential: app.Confidential(), Scopes: app.Scopes, CreatedAt: stamp(app.CreatedAt),
		Device: app.ClientID == oauthapp.CommandLine,
	}
}
