package scheduler

import (
	"context"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/claims"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// names ties a deployment's decisions to the claims on its names.
type names struct{ book claims.Book }

func holder(deploymentID string) string {
	return subjects.Of("", subjects.Deployment, deploymentID).String()
}

func namesOf(subdomain, customDomain string) []claims.Name {
	out := []claims.Name{{Kind: claims.Subdomain, Value: subdomain}}
	if customDomain != "" {
		out = append(out, claims.Name{Kind: claims.CustomDomain, Value: customDomain})
	}
	return out
}

// With returns the claim events that must be appended together with a decision.
// Errors: *claims.TakenError when a name that it needs is held by another.
func (n names) With(ctx context.Context, s deployment.State, decision proto.Message) ([]eventstore.Expected, error) {
	switch e := decision.(type) {
	case *deploymentv1.DeploymentRequested:
		return n.book.Take(ctx, holder(e.DeploymentId), namesOf(e.Subdomain, e.CustomDomain)...)
	case *deploymentv1.RestartRequested, *deploymentv1.RollbackRequested:
		if !s.NamesHeld {
			return n.book.Take(ctx, holder(s.ID), namesOf(s.Subdomain, s.CustomDomain)...)
		}
	case *deploymentv1.ReleaseFailed:
		if !s.WasLive() {
			return n.book.Release(ctx, holder(s.ID), namesOf(s.Subdomain, s.CustomDomain)...)
		}
	case *deploymentv1.DestroyRequested:
		if s.NamesHeld {
			return n.book.Release(ctx, holder(s.ID), namesOf(s.Subdomain, s.CustomDomain)...)
		}
	}
	return nil, nil
}
