package scheduler_test

import (
	"testing"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// closeOrg plays identity.
func (p *platform) closeOrg(id string) {
	p.t.Helper()
	_, err := p.store.Append(p.t.Context(), eventstore.Expected{Event: eventstore.Event{
		Aggregate: subjects.Of(id, subjects.Org, id), ID: "closed-" + id, Payload: &identityv1.OrgDeleted{DeletedBy: "op1"}, Time: time.Now(), Source: "test",
	}})
	must(p.t, err)
}

func (p *platform) destroying(id string) {
	p.t.Helper()
	within(p.t, id+" is to be destroyed", func() bool {
		d, ok := p.service.Deployment(id)
		return ok && (d.Intent == deployment.IntentDestroy || d.Status == deployment.Destroyed)
	})
}

func TestWhatADeletedOrganizationDeployedIsDestroyed(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.node("n1", 4096)
	running, waiting := p.create(request("one")), p.create(request("two"))
	p.serve(p.desired(running.Id, nodev1.DesiredState_DESIRED_STATE_RUNNING))
	p.status(running.Id, "running")
	other := request("three")
	other.Principal.OrgId, other.Principal.OperatorId = "other", "op2"
	kept := p.create(other)

	p.closeOrg("acme")
	p.destroying(running.Id)
	p.destroying(waiting.Id)
	_, err := p.client.CreateDeployment(t.Context(), request("four"))
	fault(t, err, problem.CodeForbidden)
	if d, ok := p.service.Deployment(kept.Id); !ok || d.Intent == deployment.IntentDestroy {
		t.Error("another organization's deployment went too")
	}
}

func TestWhatWasDeployedIsDestroyedThoughNobodyListenedWhenTheOrganizationWent(t *testing.T) {
	t.Parallel()
	p := start(t)
	d := p.create(request("one"))
	p.stop()
	p.closeOrg("acme")
	p.again()
	p.destroying(d.Id)
}
