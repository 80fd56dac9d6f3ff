package oauth

import (
	"context"
	"net/http"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// server is op's: op parses requests, authenticates clients through VerifyClient, checks
// that they may use the grant type, and shapes answers and errors; this asks identity.
type server struct {
	op.UnimplementedServer
	*Handler
}

// endpoints are those that clients speak forms to. The authorize endpoint is ours: op
// answers people in JSON, and compares redirects after unescaping them.
func (h *Handler) endpoints() http.Handler {
	return op.RegisterServer(server{Handler: h}, op.Endpoints{
		Token:               op.NewEndpoint(PathToken),
		Revocation:          op.NewEndpoint(PathRevoke),
		Introspection:       op.NewEndpoint(PathIntrospect),
		DeviceAuthorization: op.NewEndpoint(PathDeviceCode),
	}, op.WithServerCORSOptions(nil))
}

// VerifyClient implements op.Server.
func (s server) VerifyClient(ctx context.Context, r *op.Request[op.ClientCredentials]) (op.Client, error) {
	app, err := s.verify(ctx, r.Data)
	if err != nil {
		return nil, err
	}
	return client{app}, nil
}

func (s server) verify(ctx context.Context, c *op.ClientCredentials) (*identityv1.OAuthApp, error) {
	if c.ClientAssertion != "" {
		return nil, op.NewStatusError(oidc.ErrInvalidClient().WithDescription("Authenticate with client_id and client_secret."), http.StatusUnauthorized)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := s.deps.Identity.VerifyClient(ctx, &identityv1.VerifyClientRequest{ClientId: c.ClientID, ClientSecret: c.ClientSecret})
	if err != nil {
		return nil, s.refusal(ctx, "verify a client", err)
	}
	return res.GetApp(), nil
}

// CodeExchange implements op.Server.
func (s server) CodeExchange(ctx context.Context, r *op.ClientRequest[oidc.AccessTokenRequest]) (*op.Response, error) {
	if r.Data.CodeVerifier == "" {
		return nil, oidc.ErrInvalidRequest().WithDescription("code_verifier missing: PKCE is needed from every client")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := s.deps.Identity.RedeemCode(ctx, &identityv1.RedeemCodeRequest{
		ClientId: r.Client.GetID(), Code: r.Data.Code, RedirectUri: r.Data.RedirectURI, CodeVerifier: r.Data.CodeVerifier,
	})
	return s.tokens(ctx, "redeem a code", res.GetTokens(), err)
}

// RefreshToken implements op.Server.
func (s server) RefreshToken(ctx context.Context, r *op.ClientRequest[oidc.RefreshTokenRequest]) (*op.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := s.deps.Identity.Refresh(ctx, &identityv1.RefreshRequest{
		ClientId: r.Client.GetID(), RefreshToken: r.Data.RefreshToken, Scopes: r.Data.Scopes,
	})
	return s.tokens(ctx, "refresh tokens", res.GetTokens(), err)
}

// DeviceToken implements op.Server.
func (s server) DeviceToken(ctx context.Context, r *op.ClientRequest[oidc.DeviceAccessTokenRequest]) (*op.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := s.deps.Identity.RedeemDeviceCode(ctx, &identityv1.RedeemDeviceCodeRequest{ClientId: r.Client.GetID(), DeviceCode: r.Data.DeviceCode})
	return s.tokens(ctx, "redeem a device code", res.GetTokens(), err)
}

func (s server) tokens(ctx context.Context, doing string, t *identityv1.Tokens, err error) (*op.Response, error) {
	if err != nil {
		return nil, s.refusal(ctx, doing, err)
	}
	return op.NewResponse(&oidc.AccessTokenResponse{
		AccessToken: t.GetAccessToken(), RefreshToken: t.GetRefreshToken(), TokenType: oidc.BearerToken,
		ExpiresIn: uint64(max(0, t.GetExpiresAt().AsTime().Sub(s.deps.Now()).Round(time.Second)/time.Second)), Scope: t.GetScopes(),
	}), nil
}

// DeviceAuthorization implements op.Server.
func (s server) DeviceAuthorization(ctx context.Context, r *op.ClientRequest[oidc.DeviceAuthorizationRequest]) (*op.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := s.deps.Identity.StartDevice(ctx, &identityv1.StartDeviceRequest{ClientId: r.Client.GetID(), Scopes: r.Data.Scopes})
	if err != nil {
		return nil, s.refusal(ctx, "let a device wait", err)
	}
	page := s.deps.Issuer() + PathDevice
	return op.NewResponse(&oidc.DeviceAuthorizationResponse{
		DeviceCode: res.GetDeviceCode(), UserCode: res.GetUserCode(), VerificationURI: page,
		VerificationURIComplete: page + "?user_code=" + res.GetUserCode(),
		ExpiresIn:               int(res.GetExpiresInSeconds()), Interval: int(res.GetIntervalSeconds()),
	}), nil
}

// Revocation implements op.Server.
func (s server) Revocation(ctx context.Context, r *op.ClientRequest[oidc.RevocationRequest]) (*op.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := s.deps.Identity.Revoke(ctx, &identityv1.RevokeRequest{ClientId: r.Client.GetID(), Token: r.Data.Token}); err != nil {
		return nil, s.refusal(ctx, "revoke a token", err)
	}
	return op.NewResponse(struct{}{}), nil
}

// introspection is RFC 7662's answer; org is ours.
type introspection struct {
	Active    bool                     `json:"active"`
	Scope     oidc.SpaceDelimitedArray `json:"scope,omitempty"`
	ClientID  string                   `json:"client_id,omitempty"`
	Subject   string                   `json:"sub,omitempty"`
	Org       string                   `json:"org,omitempty"`
	TokenType string                   `json:"token_type,omitempty"`
	ExpiresAt int64                    `json:"exp,omitempty"`
	IssuedAt  int64                    `json:"iat,omitempty"`
	Issuer    string                   `json:"iss,omitempty"`
}

// Introspect implements op.Server.
func (s server) Introspect(ctx context.Context, r *op.Request[op.IntrospectionRequest]) (*op.Response, error) {
	app, err := s.verify(ctx, r.Data.ClientCredentials)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := s.deps.Identity.Introspect(ctx, &identityv1.IntrospectRequest{ClientId: app.GetClientId(), Token: r.Data.Token})
	if err != nil {
		return nil, s.refusal(ctx, "look at a token", err)
	}
	if !res.GetActive() {
		return op.NewResponse(introspection{}), nil
	}
	out := introspection{
		Active: true, Scope: res.GetScopes(), ClientID: res.GetClientId(), Subject: res.GetOperatorId(), Org: res.GetOrgId(),
		ExpiresAt: res.GetExpiresAt().AsTime().Unix(), IssuedAt: res.GetIssuedAt().AsTime().Unix(), Issuer: s.deps.Issuer(),
	}
	if !res.GetRefresh() {
		out.TokenType = oidc.BearerToken
	}
	return op.NewResponse(out), nil
}

// refusal is identity's refusal in OAuth's words.
func (s server) refusal(ctx context.Context, doing string, err error) error {
	p := problem.From(err)
	made := map[string]func() *oidc.Error{
		"invalid_client": oidc.ErrInvalidClient, "invalid_grant": oidc.ErrInvalidGrant, "invalid_scope": oidc.ErrInvalidScope,
		"unauthorized_client": oidc.ErrUnauthorizedClient, "authorization_pending": oidc.ErrAuthorizationPending,
		"slow_down": oidc.ErrSlowDown, "expired_token": oidc.ErrExpiredDeviceCode, "access_denied": oidc.ErrAccessDenied,
	}[p.Code]
	if made != nil {
		return op.NewStatusError(made().WithDescription("%s", p.Message), p.Status)
	}
	if p.Status >= http.StatusInternalServerError {
		s.deps.Log.ErrorContext(ctx, "could not "+doing, "error", err)
	}
	if p.Status >= http.StatusBadRequest && p.Status < http.StatusInternalServerError {
		return op.NewStatusError(oidc.ErrInvalidRequest().WithDescription("%s", p.Message), p.Status)
	}
	return op.NewStatusError((&oidc.Error{ErrorType: "temporarily_unavailable"}).WithDescription("%s", p.Message), p.Status)
}

// client is an app as op wants to know it.
type client struct{ app *identityv1.OAuthApp }

var _ op.Client = client{}

func (c client) GetID() string                    { return c.app.GetClientId() }
func (c client) RedirectURIs() []string           { return c.app.GetRedirectUris() }
func (c client) PostLogoutRedirectURIs() []string { return nil }
func (c client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c client) LoginURL(string) string               { return PathSignIn }
func (c client) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeBearer }
func (c client) IDTokenLifetime() time.Duration       { return 0 }
func (c client) DevMode() bool                        { return false }
func (c client) IDTokenUserinfoClaimsAssertion() bool { return false }
func (c client) ClockSkew() time.Duration             { return 0 }

func (c client) ApplicationType() op.ApplicationType {
	if c.app.GetConfidential() {
		return op.ApplicationTypeWeb
	}
	return op.ApplicationTypeNative
}

func (c client) AuthMethod() oidc.AuthMethod {
	if c.app.GetConfidential() {
		return oidc.AuthMethodBasic
	}
	return oidc.AuthMethodNone
}

func (c client) GrantTypes() []oidc.GrantType {
	if c.app.GetDevice() {
		return []oidc.GrantType{oidc.GrantTypeDeviceCode, oidc.GrantTypeRefreshToken}
	}
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}

func (c client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(s []string) []string { return s }
}

func (c client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(s []string) []string { return s }
}

func (c client) IsScopeAllowed(scope string) bool {
	for _, s := range c.app.GetScopes() {
		if s == scope {
			return true
		}
	}
	return false
}
