package scheduler

import (
	"context"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// names ties a deployment's decisions to the claims on its names.
type names struct{ book claims.Book }

func holder(deploymentID string) string {
	return subjects.Of("", subjects.Deployment, deploymentID).String()
}

func subdomain(name string) claims.Name { return claims.Name{Kind: claims.Subdomain, Value: name} }

func customDomain(name string) claims.Name {
	return claims.Name{Kind: claims.CustomDomain, Value: name}
}

// namesOf are what a deployment may hold. Custom domains are claimed when they are
// proved, by who proves them; deployments of older logs hold theirs themselves.
func namesOf(s deployment.State) []claims.Name {
	out := []claims.Name{subdomain(s.Subdomain)}
	if s.CustomDomain != "" {
		out = append(out, customDomain(s.CustomDomain))
	}
	return out
}

// With returns the claim events that must be appended together with a decision.
// Errors: *claims.TakenError when a name that it needs is held by another.
func (n names) With(ctx context.Context, s deployment.State, decision proto.Message) ([]eventstore.Expected, error) {
	switch e := decision.(type) {
	case *deploymentv1.DeploymentRequested:
		return n.book.Take(ctx, holder(e.DeploymentId), subdomain(e.Subdomain))
	case *deploymentv1.RestartRequested, *deploymentv1.RollbackRequested:
		if !s.NamesHeld {
			return n.book.Take(ctx, holder(s.ID), subdomain(s.Subdomain))
		}
	case *deploymentv1.ReleaseFailed:
		if !s.WasLive() {
			return n.book.Release(ctx, holder(s.ID), namesOf(s)...)
		}
	case *deploymentv1.DestroyRequested:
		if s.NamesHeld {
			return n.book.Release(ctx, holder(s.ID), namesOf(s)...)
		}
	}
	return nil, nil
}
