package gateway

import (
	"context"
	"log/slog"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	oauthv1 "github.com/slipway-paas/slipway/gen/slipway/oauth/v1"
	"github.com/slipway-paas/slipway/services/gateway/authn"
)

// appServer is the JSON half of the OAuth dialect; the rest is in package oauth.
type appServer struct {
	oauthv1.UnimplementedOAuthAppServiceServer
	identity identityv1.OAuthServiceClient
	log      *slog.Logger
}

func (s *appServer) RegisterApp(ctx context.Context, in *oauthv1.RegisterAppRequest) (*oauthv1.RegisterAppResponse, error) {
	out, err := relay(ctx, s.log, "register an app", s.identity.RegisterApp, &identityv1.RegisterAppRequest{
		Principal: authn.Principal(ctx), Name: in.GetName(), RedirectUris: in.GetRedirectUris(),
		Confidential: in.Confidential == nil || in.GetConfidential().GetValue(), Scopes: in.GetScopes(),
	})
	if err != nil {
		return nil, err
	}
	return &oauthv1.RegisterAppResponse{App: oauthApp(out.GetApp()), ClientSecret: optional(out.GetClientSecret())}, nil
}

func (s *appServer) GetApp(ctx context.Context, in *oauthv1.GetAppRequest) (*oauthv1.GetAppResponse, error) {
	out, err := relay(ctx, s.log, "show an app", s.identity.GetApp, &identityv1.GetAppRequest{Principal: authn.Principal(ctx), ClientId: in.GetClientId()})
	if err != nil {
		return nil, err
	}
	return &oauthv1.GetAppResponse{App: oauthApp(out.GetApp())}, nil
}

func (s *appServer) ListApps(ctx context.Context, _ *oauthv1.ListAppsRequest) (*oauthv1.ListAppsResponse, error) {
	out, err := relay(ctx, s.log, "list apps", s.identity.ListApps, &identityv1.ListAppsRequest{Principal: authn.Principal(ctx)})
	if err != nil {
		return nil, err
	}
	res := &oauthv1.ListAppsResponse{}
	for _, a := range out.GetApps() {
		res.Apps = append(res.Apps, oauthApp(a))
	}
	return res, nil
}

func (s *appServer) RotateAppSecret(ctx context.Context, in *oauthv1.RotateAppSecretRequest) (*oauthv1.RotateAppSecretResponse, error) {
	out, err := relay(ctx, s.log, "rotate an app's secret", s.identity.RotateAppSecret, &identityv1.RotateAppSecretRequest{
		Principal: authn.Principal(ctx), ClientId: in.GetClientId(),
	})
	if err != nil {
		return nil, err
	}
	return &oauthv1.RotateAppSecretResponse{App: oauthApp(out.GetApp()), ClientSecret: out.GetClientSecret()}, nil
}

func (s *appServer) DeleteApp(ctx context.Context, in *oauthv1.DeleteAppRequest) (*oauthv1.DeleteAppResponse, error) {
	if _, err := relay(ctx, s.log, "delete an app", s.identity.DeleteApp, &identityv1.DeleteAppRequest{
		Principal: authn.Principal(ctx), ClientId: in.GetClientId(),
	}); err != nil {
		return nil, err
	}
	return &oauthv1.DeleteAppResponse{Message: "App deleted", ClientId: in.GetClientId()}, nil
}

func (s *appServer) DescribeToken(ctx context.Context, _ *oauthv1.DescribeTokenRequest) (*oauthv1.DescribeTokenResponse, error) {
	p := authn.Principal(ctx)
	return &oauthv1.DescribeTokenResponse{
		OperatorId: p.GetOperatorId(), OrgId: p.GetOrgId(), AppId: p.GetAppId(), Scopes: p.GetScopes(),
		Role: p.GetRole(), ExpiresAt: millis(p.GetExpiresAt()),
	}, nil
}

func (s *appServer) ListGrants(ctx context.Context, _ *oauthv1.ListGrantsRequest) (*oauthv1.ListGrantsResponse, error) {
	out, err := relay(ctx, s.log, "list grants", s.identity.ListGrants, &identityv1.ListGrantsRequest{Principal: authn.Principal(ctx)})
	if err != nil {
		return nil, err
	}
	res := &oauthv1.ListGrantsResponse{}
	for _, g := range out.GetGrants() {
		res.Grants = append(res.Grants, &oauthv1.Grant{
			Id: g.GetId(), OrgId: g.GetOrgId(), ClientId: g.GetClientId(), AppName: g.GetClientName(), Scopes: g.GetScopes(),
			CreatedAt: millis(g.GetCreatedAt()), LastUsedAt: millis(g.GetLastUsedAt()), ExpiresAt: millis(g.GetExpiresAt()),
		})
	}
	return res, nil
}

func (s *appServer) RevokeGrant(ctx context.Context, in *oauthv1.RevokeGrantRequest) (*oauthv1.RevokeGrantResponse, error) {
	if _, err := relay(ctx, s.log, "revoke a grant", s.identity.RevokeGrant, &identityv1.RevokeGrantRequest{Principal: authn.Principal(ctx), Id: in.GetId()}); err != nil {
		return nil, err
	}
	return &oauthv1.RevokeGrantResponse{Message: "Grant revoked", Id: in.GetId()}, nil
}

func oauthApp(a *identityv1.OAuthApp) *oauthv1.App {
	return &oauthv1.App{
		ClientId: a.GetClientId(), Name: a.GetName(), RedirectUris: a.GetRedirectUris(), Confidential: a.GetConfidential(),
		Scopes: a.GetScopes(), CreatedAt: millis(a.GetCreatedAt()),
	}
}
