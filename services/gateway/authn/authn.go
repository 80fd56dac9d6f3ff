// Package authn says who calls and what they may: one table of scopes for every
// method of the public API, one check for REST and gRPC alike.
package authn

import (
	"context"
	"slices"
	"strings"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// Authenticator finds out who a token speaks for. Errors are *problem.Error: 401
// for a token that is nobody's, 503 when that cannot be found out.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (*identityv1.Principal, error)
}

// scopeDeploy is what a token needs for the deploy dialect.
const scopeDeploy = "deploy:manage"

// scopeAdmin is what a token needs to run the platform.
const scopeAdmin = "admin"

// public methods need no token.
const public = ""

// scopes names, for each gRPC method, the scope that it needs. A method that is not
// here is refused.
var scopes = map[string]string{
	deployv1.DeployService_ListTiers_FullMethodName:              scopeDeploy,
	deployv1.DeployService_CreateDeployment_FullMethodName:       scopeDeploy,
	deployv1.DeployService_ListDeployments_FullMethodName:        scopeDeploy,
	deployv1.DeployService_GetDeployment_FullMethodName:          scopeDeploy,
	deployv1.DeployService_GetDeploymentStatus_FullMethodName:    scopeDeploy,
	deployv1.DeployService_ListDeploymentLogs_FullMethodName:     scopeDeploy,
	deployv1.DeployService_RestartDeployment_FullMethodName:      scopeDeploy,
	deployv1.DeployService_StopDeployment_FullMethodName:         scopeDeploy,
	deployv1.DeployService_DestroyDeployment_FullMethodName:      scopeDeploy,
	deployv1.DeployService_FollowDeploymentEvents_FullMethodName: scopeDeploy,

	adminv1.AdminService_ListNodes_FullMethodName:         scopeAdmin,
	adminv1.AdminService_DrainNode_FullMethodName:         scopeAdmin,
	adminv1.AdminService_UncordonNode_FullMethodName:      scopeAdmin,
	adminv1.AdminService_GetProjection_FullMethodName:     scopeAdmin,
	adminv1.AdminService_RebuildProjection_FullMethodName: scopeAdmin,
	adminv1.AdminService_ListDeadLetters_FullMethodName:   scopeAdmin,
	adminv1.AdminService_GetDeadLetter_FullMethodName:     scopeAdmin,
	adminv1.AdminService_ReplayDeadLetter_FullMethodName:  scopeAdmin,
	adminv1.AdminService_DropDeadLetter_FullMethodName:    scopeAdmin,

	"/grpc.health.v1.Health/Check":                                   public,
	"/grpc.health.v1.Health/List":                                    public,
	"/grpc.health.v1.Health/Watch":                                   public,
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      public,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": public,
}

// Guard lets calls in or not.
type Guard struct{ authenticator Authenticator }

// NewGuard makes a guard that asks the authenticator.
func NewGuard(a Authenticator) *Guard { return &Guard{authenticator: a} }

// Authorize checks the values of the Authorization header (or metadata) against
// the scope that the method needs, and returns who calls; nil for public methods.
// Errors are *problem.Error: 401, 403, 404 for a method that is not in the table,
// 503.
func (g *Guard) Authorize(ctx context.Context, fullMethod string, authorization []string) (*identityv1.Principal, error) {
	scope, known := scopes[fullMethod]
	if !known {
		return nil, problem.NotFound("There is no such method.")
	}
	if scope == public {
		return nil, nil
	}
	token, err := bearer(authorization)
	if err != nil {
		return nil, err
	}
	principal, err := g.authenticator.Authenticate(ctx, token)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(principal.GetScopes(), scope) {
		return nil, problem.Forbidden("The access token lacks the scope " + scope + "; get one that has it.")
	}
	return principal, nil
}

// maxToken bounds what is hashed for anybody who asks, in bytes.
const maxToken = 4096

func bearer(authorization []string) (string, error) {
	if len(authorization) == 0 {
		return "", problem.Unauthorized("An access token is needed; send it as the header Authorization: Bearer TOKEN.")
	}
	scheme, token, ok := strings.Cut(authorization[0], " ")
	token = strings.TrimSpace(token)
	if len(authorization) > 1 || !ok || !strings.EqualFold(scheme, "bearer") || token == "" || len(token) > maxToken {
		return "", problem.Unauthorized("The Authorization header is not usable; send exactly one, as Authorization: Bearer TOKEN.")
	}
	return token, nil
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
