package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/credential"
	"github.com/slipway-paas/slipway/services/identity/grant"
	"github.com/slipway-paas/slipway/services/identity/oauthapp"
)

// Approve implements identityv1.OAuthServiceServer.
func (s *Server) Approve(ctx context.Context, req *identityv1.ApproveRequest) (*identityv1.ApproveResponse, error) {
	p := req.GetPrincipal()
	if err := checkPrincipal(p); err != nil {
		return nil, err
	}
	app, err := s.find(req.GetClientId())
	if err != nil {
		return nil, err
	}
	if !app.Redirects(req.GetRedirectUri()) {
		return nil, problem.Malformed("The app has not registered this redirect_uri.")
	}
	challenge, err := base64.RawURLEncoding.Strict().DecodeString(req.GetCodeChallenge())
	if err != nil || len(challenge) != sha256.Size {
		return nil, problem.Malformed("The code_challenge is not the base64url of a SHA-256 (RFC 7636, method S256).")
	}
	if err := s.mayGrant(p, app, req.GetScopes()); err != nil {
		return nil, err
	}
	a := subjects.Of(p.GetOrgId(), subjects.Grant, uuid.Must(uuid.NewV7()).String())
	code, hash := newAddressed(prefixCode, a)
	_, err = s.grants.Handle(ctx, command[grant.Command](ctx, a, p.GetOperatorId(), grant.Open{
		ID: a.ID, OrgID: a.Org, OperatorID: p.GetOperatorId(), ClientID: app.ClientID, ClientName: app.Name,
		Scopes: req.GetScopes(), RedirectURI: req.GetRedirectUri(), Challenge: grant.Hash(challenge), Code: hash,
		PasswordEpoch: s.deps.People.PasswordEpoch(p.GetOperatorId()),
	}))
	if err != nil {
		return nil, s.failed(ctx, "open a grant", err)
	}
	return &identityv1.ApproveResponse{Code: code}, nil
}

// RedeemCode implements identityv1.OAuthServiceServer.
func (s *Server) RedeemCode(ctx context.Context, req *identityv1.RedeemCodeRequest) (*identityv1.RedeemCodeResponse, error) {
	a, hash, ok := addressed(prefixCode, subjects.Grant, req.GetCode())
	if !ok {
		return nil, grant.Refuse("The code is not valid; send the person to the authorize page again.")
	}
	if err := s.stands(ctx, a); err != nil {
		return nil, err
	}
	fresh := newPair(a)
	done, err := s.grants.Handle(ctx, command[grant.Command](ctx, a, req.GetClientId(), grant.RedeemCode{
		ClientID: req.GetClientId(), Code: hash, RedirectURI: req.GetRedirectUri(), Verifier: req.GetCodeVerifier(), Tokens: fresh.hashes,
	}))
	if err != nil {
		return nil, s.failed(ctx, "redeem a code", err)
	}
	tokens, err := s.issued(ctx, done, fresh)
	return &identityv1.RedeemCodeResponse{Tokens: tokens}, err
}

// Refresh implements identityv1.OAuthServiceServer.
func (s *Server) Refresh(ctx context.Context, req *identityv1.RefreshRequest) (*identityv1.RefreshResponse, error) {
	a, hash, ok := addressed(prefixRefresh, subjects.Grant, req.GetRefreshToken())
	if !ok {
		return nil, grant.Refuse("The refresh token is not valid; sign in again.")
	}
	if err := s.stands(ctx, a); err != nil {
		return nil, err
	}
	fresh := newPair(a)
	done, err := s.grants.Handle(ctx, command[grant.Command](ctx, a, req.GetClientId(), grant.UseRefresh{
		ClientID: req.GetClientId(), Refresh: hash, Scopes: req.GetScopes(), Tokens: fresh.hashes,
	}))
	if err != nil {
		return nil, s.failed(ctx, "refresh tokens", err)
	}
	tokens, err := s.issued(ctx, done, fresh)
	return &identityv1.RefreshResponse{Tokens: tokens}, err
}

// Revoke implements identityv1.OAuthServiceServer.
func (s *Server) Revoke(ctx context.Context, req *identityv1.RevokeRequest) (*identityv1.RevokeResponse, error) {
	a, hash, ok := addressed(prefixRefresh, subjects.Grant, req.GetToken())
	if !ok {
		hash = sha256.Sum256([]byte(req.GetToken()))
		if a, _, _, ok = s.known.access(hash, s.deps.Now()); !ok {
			return &identityv1.RevokeResponse{}, nil
		}
	}
	done, err := s.grants.Handle(ctx, command[grant.Command](ctx, a, req.GetClientId(), grant.RevokeToken{ClientID: req.GetClientId(), Token: hash}))
	if err != nil {
		return nil, s.failed(ctx, "revoke a token", err)
	}
	if done.Event != nil {
		s.wait(ctx, done.Sequence)
	}
	return &identityv1.RevokeResponse{}, nil
}

// Introspect implements identityv1.OAuthServiceServer.
func (s *Server) Introspect(ctx context.Context, req *identityv1.IntrospectRequest) (*identityv1.IntrospectResponse, error) {
	now := s.deps.Now()
	answer := func(g grant.State) *identityv1.IntrospectResponse {
		return &identityv1.IntrospectResponse{Active: true, OperatorId: g.OperatorID, OrgId: g.OrgID, ClientId: g.ClientID}
	}
	if a, hash, ok := addressed(prefixRefresh, subjects.Grant, req.GetToken()); ok {
		g, _, err := s.grants.Load(ctx, a)
		if err != nil {
			return nil, s.failed(ctx, "look at a token", err)
		}
		if g.ClientID != req.GetClientId() || !g.HoldsRefresh(hash, now) || !s.deps.People.Stands(g.OperatorID, g.OrgID, g.PasswordEpoch) {
			return &identityv1.IntrospectResponse{}, nil
		}
		out := answer(g)
		out.Scopes, out.ExpiresAt, out.IssuedAt, out.Refresh = g.Scopes, stamp(g.Refresh.ExpiresAt), stamp(g.LastUsedAt), true
		return out, nil
	}
	_, g, access, ok := s.known.access(sha256.Sum256([]byte(req.GetToken())), now)
	if !ok || g.ClientID != req.GetClientId() || !s.deps.People.Stands(g.OperatorID, g.OrgID, g.PasswordEpoch) {
		return &identityv1.IntrospectResponse{}, nil
	}
	out := answer(g)
	out.Scopes, out.ExpiresAt, out.IssuedAt = access.Scopes, stamp(access.ExpiresAt), stamp(access.IssuedAt)
	return out, nil
}

// stands refuses a grant whose giver is no member any more, or has changed the password.
func (s *Server) stands(ctx context.Context, a subjects.Aggregate) error {
	g, _, err := s.grants.Load(ctx, a)
	if err != nil {
		return s.failed(ctx, "look at a grant", err)
	}
	if g.Exists() && s.known.Deleted(g.ClientID) {
		return grant.Refuse("The app that this was allowed to has been deleted.")
	}
	if g.Exists() && !s.deps.People.Stands(g.OperatorID, g.OrgID, g.PasswordEpoch) {
		return noMore()
	}
	return nil
}

func noMore() error {
	return grant.Refuse("Who allowed this is no member of the organization any more, or has changed the password since; sign in again.")
}

// ListGrants implements identityv1.OAuthServiceServer.
func (s *Server) ListGrants(_ context.Context, req *identityv1.ListGrantsRequest) (*identityv1.ListGrantsResponse, error) {
	if err := checkPrincipal(req.GetPrincipal()); err != nil {
		return nil, err
	}
	res := &identityv1.ListGrantsResponse{}
	for _, g := range s.shownTo(req.GetPrincipal()) {
		res.Grants = append(res.Grants, &identityv1.Grant{
			Id: g.ID, OrgId: g.OrgID, ClientId: g.ClientID, ClientName: g.ClientName, Scopes: g.Scopes,
			CreatedAt: stamp(g.OpenedAt), LastUsedAt: stamp(g.LastUsedAt), ExpiresAt: stamp(g.End()),
		})
	}
	return res, nil
}

// shownTo are the operator's grants. What a person has allowed others is no app's
// business: an app is shown its own, but for the command line, and who runs the platform.
func (s *Server) shownTo(p *identityv1.Principal) []grant.State {
	all := s.known.ofOperator(p.GetOperatorId(), s.deps.Now())
	all = slices.DeleteFunc(all, func(g grant.State) bool { return !s.deps.People.Stands(g.OperatorID, g.OrgID, g.PasswordEpoch) })
	if p.GetKind() != credential.AccessToken || p.GetAppId() == oauthapp.CommandLine || access.Holds(p.GetScopes(), access.Admin) {
		return all
	}
	return slices.DeleteFunc(all, func(g grant.State) bool { return g.ClientID != p.GetAppId() })
}

// RevokeGrant implements identityv1.OAuthServiceServer.
func (s *Server) RevokeGrant(ctx context.Context, req *identityv1.RevokeGrantRequest) (*identityv1.RevokeGrantResponse, error) {
	p := req.GetPrincipal()
	if err := checkPrincipal(p); err != nil {
		return nil, err
	}
	own := s.shownTo(p)
	i := slices.IndexFunc(own, func(g grant.State) bool { return g.ID == strings.ToLower(req.GetId()) })
	if i < 0 {
		return nil, problem.NotFound("You have no such grant; GET /api/oauth/grants lists yours.")
	}
	a := subjects.Of(own[i].OrgID, subjects.Grant, own[i].ID)
	done, err := s.grants.Handle(ctx, command[grant.Command](ctx, a, p.GetOperatorId(), grant.Revoke{}))
	if err != nil {
		return nil, s.failed(ctx, "revoke a grant", err)
	}
	s.wait(ctx, done.Sequence)
	return &identityv1.RevokeGrantResponse{}, nil
}

// pair is a new access token and the refresh token beside it.
type pair struct {
	access, refresh string
	hashes          grant.TokenHashes
}

func newPair(a subjects.Aggregate) pair {
	var p pair
	p.access, p.hashes.Access = newSecret(prefixAccess)
	p.refresh, p.hashes.Refresh = newAddressed(prefixRefresh, a)
	return p
}

// issued answers the tokens when the decision was to issue them, and refuses when it was
// to end the grant.
func (s *Server) issued(ctx context.Context, done decider.Result[grant.State], fresh pair) (*identityv1.Tokens, error) {
	s.wait(ctx, done.Sequence)
	access, ok := done.State.AccessToken(fresh.hashes.Access, s.deps.Now())
	if !ok {
		s.deps.Log.WarnContext(ctx, "a code or refresh token came twice: its grant has ended", "grant", done.State.ID, "client_id", done.State.ClientID)
		return nil, refused(http.StatusBadRequest, grant.CodeInvalidGrant, "It was used before. Somebody may have stolen it, so that everything it led to has been revoked; sign in again.")
	}
	return &identityv1.Tokens{AccessToken: fresh.access, RefreshToken: fresh.refresh, ExpiresAt: stamp(access.ExpiresAt), Scopes: access.Scopes}, nil
}
