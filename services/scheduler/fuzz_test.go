package scheduler_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// answersWithin is how long any answer may take before it counts as a hang.
const answersWithin = 20 * time.Second

// FuzzEveryCallIsAnswered: whatever the gateway passes on, on the real log and the real
// database, is done or refused with a reason, and is never a fault of ours.
func FuzzEveryCallIsAnswered(f *testing.F) {
	p := start(f)
	known := p.create(request("known")).Id
	f.Add("my-app", "ghcr.io/acme/app:1", "buddo-starter", int64(3000), "", "KEY", "value", "")
	f.Add("b", "ghcr.io/acme/app:1", "btc-pro", int64(1), "www.example.com", "A", "\u2028", strings.ToUpper(known))
	f.Add("known", "ghcr.io/acme/app@sha256:"+strings.Repeat("a", 64), "\x00", int64(-1), "\x00", "\x00", "\x00", "{"+known+"}")
	f.Add("a-"+strings.Repeat("a", 40), "ghcr.io/", strings.Repeat("t", 5000), int64(1)<<40, strings.Repeat("a.", 200)+"test", "=", "", "urn:uuid:"+known)
	f.Add("x", "ghcr.io/acme/app:1", "btc-pro", int64(65535), "xn--bcher-kva.example", "B", strings.Repeat("v", 40_000), strings.ReplaceAll(known, "-", ""))
	f.Add("", "", "", int64(0), "", "", "", "deployments-1")
	f.Add("", "", "", int64(0), "", "", "", "deployments-18446744073709551615")
	f.Add("", "", "", int64(0), "", "", "", "evt.>")
	f.Add("", "", "", int64(0), "", "", "", "\x00")
	f.Fuzz(func(t *testing.T, subdomain, image, tier string, port int64, domain, name, value, id string) {
		ctx, cancel := context.WithTimeout(t.Context(), answersWithin)
		defer cancel()
		created, err := p.client.CreateDeployment(ctx, &schedulerv1.CreateDeploymentRequest{Principal: owner(),
			Subdomain: subdomain, Image: image, Tier: tier, Port: &port, CustomDomain: domain, EnvVars: map[string]string{name: value}})
		if answered(t, "create", err); err == nil {
			_, err = p.client.DestroyDeployment(ctx, &schedulerv1.DestroyDeploymentRequest{Principal: owner(), Id: created.Deployment.Id})
			answered(t, "destroy", err)
		}
		who := owner()
		_, err = p.client.GetDeployment(ctx, &schedulerv1.GetDeploymentRequest{Principal: who, Id: id})
		answered(t, "get", err)
		_, err = p.client.ListLogs(ctx, &schedulerv1.ListLogsRequest{Principal: who, Id: id})
		answered(t, "list the logs of", err)
		_, err = p.client.RestartDeployment(ctx, &schedulerv1.RestartDeploymentRequest{Principal: who, Id: id})
		answered(t, "restart", err)
		_, err = p.client.ScaleDeployment(ctx, &schedulerv1.ScaleDeploymentRequest{Principal: who, Id: id, Count: port})
		answered(t, "scale", err)
		_, err = p.client.RollbackDeployment(ctx, &schedulerv1.RollbackDeploymentRequest{Principal: who, Id: id, ReleaseNumber: &port})
		answered(t, "roll back", err)
		_, err = p.client.ListReleases(ctx, &schedulerv1.ListReleasesRequest{Principal: who, Id: id})
		answered(t, "list the releases of", err)
		_, err = p.client.ResolveApp(ctx, &schedulerv1.ResolveAppRequest{Principal: who, App: id})
		answered(t, "resolve", err)
		// Stopped too, known would be another story for the calls that come after.
		if !strings.EqualFold(id, known) {
			_, err = p.client.StopDeployment(ctx, &schedulerv1.StopDeploymentRequest{Principal: who, Id: id})
			answered(t, "stop", err)
			_, err = p.client.DestroyDeployment(ctx, &schedulerv1.DestroyDeploymentRequest{Principal: who, Id: id})
			answered(t, "destroy", err)
		}
		_, err = p.admin.DrainNode(ctx, &adminv1.DrainNodeRequest{NodeId: id})
		answered(t, "drain", err)
		_, err = p.admin.UncordonNode(ctx, &adminv1.UncordonNodeRequest{NodeId: id})
		answered(t, "uncordon", err)
		_, err = p.admin.GetProjection(ctx, &adminv1.GetProjectionRequest{Name: id})
		answered(t, "look at the projection", err)
		_, err = p.admin.GetDeadLetter(ctx, &adminv1.GetDeadLetterRequest{Id: id})
		answered(t, "show the dead letter", err)
		_, err = p.admin.ReplayDeadLetter(ctx, &adminv1.ReplayDeadLetterRequest{Id: id})
		answered(t, "replay the dead letter", err)
		_, err = p.admin.DropDeadLetter(ctx, &adminv1.DropDeadLetterRequest{Id: id})
		answered(t, "drop the dead letter", err)
		if secrets := p.service.Secrets(ctx, "svc.env."+id); secrets.GetError() == "" || len(secrets.GetEnv()) > 0 {
			t.Errorf("a node that runs nothing was told the environment of %q", id)
		}
	})
}

// answered checks that an error is one of those that the API has for the caller's own.
func answered(t *testing.T, doing string, err error) {
	t.Helper()
	// Text that is not UTF-8 does not get as far as a call.
	if err == nil || status.Code(err) == codes.Internal && strings.Contains(err.Error(), "invalid UTF-8") {
		return
	}
	if p := problem.From(err); p.Status >= 500 || p.Message == "" {
		t.Errorf("%s: %d %s: %v", doing, p.Status, p.Code, err)
	}
}
