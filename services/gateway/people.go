package gateway

import (
	"context"
	"net/http"
	"slices"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/oauth"
)

// people signs people in to the OAuth pages.
type people struct {
	authenticator authn.Authenticator
	accounts      *accountServer
	orgs          *orgServer
}

// SignIn implements oauth.People.
func (p people) SignIn(ctx context.Context, email, password, code string) (string, error) {
	out, err := p.accounts.Login(ctx, &identityv1.LoginRequest{Email: email, Password: password, Code: code})
	return out.GetToken(), err
}

// Who implements oauth.People.
func (p people) Who(ctx context.Context, session, org string) (*identityv1.Principal, error) {
	who, err := p.authenticator.Authenticate(ctx, session, org)
	if err != nil {
		return nil, err
	}
	switch who.GetKind() {
	case identityv1.CredentialKind_CREDENTIAL_KIND_SESSION:
		return who, nil
	case identityv1.CredentialKind_CREDENTIAL_KIND_ACCESS_TOKEN:
		// The first operator has a token and may have no password.
		if slices.Contains(who.GetScopes(), access.Admin) {
			return who, nil
		}
	}
	return nil, problem.Unauthorized("This token cannot sign anybody in; it must have the scope admin.")
}

// Account implements oauth.People.
func (p people) Account(ctx context.Context, who *identityv1.Principal) (string, error) {
	out, err := p.accounts.GetMe(authn.WithPrincipal(ctx, who), &identityv1.GetMeRequest{})
	if err != nil && problem.From(err).Status == http.StatusNotFound {
		// The first operator may have no account.
		return "", nil
	}
	return out.GetUser().GetEmail(), err
}

// Orgs implements oauth.People.
func (p people) Orgs(ctx context.Context, who *identityv1.Principal) ([]oauth.Org, error) {
	out, err := p.orgs.ListOrgs(authn.WithPrincipal(ctx, who), &identityv1.ListOrgsRequest{})
	if err != nil {
		return nil, err
	}
	var all []oauth.Org
	for _, o := range out.GetOrgs() {
		all = append(all, oauth.Org{ID: o.GetId(), Name: o.GetName()})
	}
	return all, nil
}
