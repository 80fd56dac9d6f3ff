// Package authn says who calls and what they may: one table of scopes and kinds of
// credential for every method of the public API, one check for REST and gRPC alike.
package authn

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Authenticator finds out who a credential speaks for; org is the organization that the
// caller names, empty for none. Errors are *problem.Error: 401 for what is nobody's,
// 403 when it does not speak for the organization, 503 when that cannot be found out.
type Authenticator interface {
	Authenticate(ctx context.Context, token, org string) (*identityv1.Principal, error)
}

// Headers that say who calls.
const (
	authorizationHeader = "Authorization"
	apiKeyHeader        = "X-Api-Key"
	// orgHeader names the organization that a session acts for.
	orgHeader = "Slipway-Org"
)

// Presented is what a caller shows: the values of those headers.
type Presented struct{ Authorization, APIKey, Org []string }

// FromHeader takes what an HTTP request presents.
func FromHeader(h http.Header) Presented {
	return Presented{Authorization: h[authorizationHeader], APIKey: h[apiKeyHeader], Org: h[orgHeader]}
}

// FromMetadata takes what a gRPC call presents.
func FromMetadata(ctx context.Context) Presented {
	return Presented{
		Authorization: metadata.ValueFromIncomingContext(ctx, authorizationHeader),
		APIKey:        metadata.ValueFromIncomingContext(ctx, apiKeyHeader),
		Org:           metadata.ValueFromIncomingContext(ctx, orgHeader),
	}
}

// Guard lets calls in or not.
type Guard struct{ authenticator Authenticator }

// NewGuard makes a guard that asks the authenticator.
func NewGuard(a Authenticator) *Guard { return &Guard{authenticator: a} }

// Authorize checks what the caller presents against what the method takes, and returns
// who calls; nil for public methods. Errors are *problem.Error: 400, 401 also for a
// credential of a kind that the method does not take, 403, 404 for a method that is
// not in the table, 503.
func (g *Guard) Authorize(ctx context.Context, fullMethod string, shown Presented) (*identityv1.Principal, error) {
	rule, known := rules[fullMethod]
	if !known {
		return nil, problem.NotFound("There is no such method.")
	}
	if len(rule) == 0 {
		return nil, nil
	}
	token, isKey, err := shown.credential(rule)
	if err != nil {
		return nil, err
	}
	org, err := shown.org()
	if err != nil {
		return nil, err
	}
	principal, err := g.authenticator.Authenticate(ctx, token, org)
	if err != nil {
		return nil, err
	}
	scope, takes := rule[principal.GetKind()]
	if !takes || isKey != (principal.GetKind() == apiKey) {
		return nil, problem.Unauthorized("This credential is not of a kind that is taken here. " + rule.wanted())
	}
	if scope != noScope && !slices.ContainsFunc(strings.Fields(scope), func(one string) bool { return access.Holds(principal.GetScopes(), one) }) {
		return nil, problem.Forbidden("The credential lacks the scope " + strings.ReplaceAll(scope, " ", " or ") + ", or your role in the organization does not allow it; get one that has it.")
	}
	return principal, nil
}

// wanted says what a method takes.
func (r rule) wanted() string {
	_, token := r[accessToken]
	_, login := r[session]
	_, key := r[apiKey]
	switch {
	case token && !login:
		return "An OAuth access token is needed; send it as the header Authorization: Bearer TOKEN."
	case key:
		return "A login's token, an access token or an API key is needed; send the header Authorization: Bearer TOKEN, or x-api-key: KEY."
	}
	return "A login's token is needed: POST /api/v1/auth/login gives one; send it as the header Authorization: Bearer TOKEN."
}

// maxToken bounds what is hashed for anybody who asks, in bytes.
const maxToken = 4096

func (p Presented) credential(r rule) (token string, isKey bool, err error) {
	switch {
	case len(p.Authorization) == 0 && len(p.APIKey) == 0:
		return "", false, problem.Unauthorized(r.wanted())
	case len(p.Authorization) > 0 && len(p.APIKey) > 0:
		return "", false, problem.Unauthorized("There are two credentials, in Authorization and in x-api-key; send one.")
	case len(p.APIKey) > 0:
		key := strings.TrimSpace(p.APIKey[0])
		if len(p.APIKey) > 1 || key == "" || len(key) > maxToken {
			return "", false, problem.Unauthorized("The header x-api-key is not usable; send exactly one, with the key and nothing else.")
		}
		return key, true, nil
	}
	scheme, token, ok := strings.Cut(p.Authorization[0], " ")
	token = strings.TrimSpace(token)
	if len(p.Authorization) > 1 || !ok || !strings.EqualFold(scheme, "bearer") || token == "" || len(token) > maxToken {
		return "", false, problem.Unauthorized("The Authorization header is not usable; send exactly one, as Authorization: Bearer TOKEN.")
	}
	return token, false, nil
}

func (p Presented) org() (string, error) {
	if len(p.Org) == 0 {
		return "", nil
	}
	if org := strings.TrimSpace(p.Org[0]); len(p.Org) == 1 && subjects.ValidToken(org) {
		return org, nil
	}
	return "", problem.Malformed("The header Slipway-Org is not usable; send exactly one, with the id of an organization.")
}

type principalKey struct{}

// WithPrincipal puts who calls into the context.
func WithPrincipal(ctx context.Context, p *identityv1.Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// Principal is who calls; nil when nobody was authorized.
func Principal(ctx context.Context) *identityv1.Principal {
	p, _ := ctx.Value(principalKey{}).(*identityv1.Principal)
	return p
}
