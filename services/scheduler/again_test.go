package scheduler_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// under is a context whose calls give their command under an ID.
func under(t *testing.T, id string) context.Context { return rpc.WithCommandID(t.Context(), id) }

func TestACommandGivenAgainUnderItsIDIsDoneOnce(t *testing.T) {
	t.Parallel()
	p := start(t)
	in := request("my-app")
	in.EnvVars = map[string]string{"TOKEN": "hunter2"}
	command := uuid.NewString()
	first, err := p.client.CreateDeployment(under(t, command), in)
	must(t, err)
	d := first.Deployment
	p.node("n1", 1024)
	p.serve(p.desired(d.Id, nodev1.DesiredState_DESIRED_STATE_RUNNING))
	p.status(d.Id, "running")

	restart := &schedulerv1.RestartDeploymentRequest{Principal: owner(), Id: d.Id}
	restartID := uuid.NewString()
	restarted, err := p.client.RestartDeployment(under(t, restartID), restart)
	must(t, err)
	stop := &schedulerv1.StopDeploymentRequest{Principal: owner(), Id: d.Id}
	stopID := uuid.NewString()
	stopped, err := p.client.StopDeployment(under(t, stopID), stop)
	must(t, err)

	// Much has happened since, also to the scheduler; each answer is the first one.
	p.stop()
	p.again()
	again, err := p.client.CreateDeployment(under(t, command), in)
	must(t, err)
	if !proto.Equal(first, again) {
		t.Errorf("created as\n%v\nand again\n%v", first, again)
	}
	restartedAgain, err := p.client.RestartDeployment(under(t, restartID), restart)
	must(t, err)
	if !proto.Equal(restarted, restartedAgain) {
		t.Errorf("restarted as\n%v\nand again\n%v", restarted, restartedAgain)
	}
	stoppedAgain, err := p.client.StopDeployment(under(t, stopID), stop)
	must(t, err)
	if !proto.Equal(stopped, stoppedAgain) {
		t.Errorf("stopped as\n%v\nand again\n%v", stopped, stoppedAgain)
	}
	events, err := p.store.Load(t.Context(), subjects.Of("acme", subjects.Deployment, d.Id), 0)
	must(t, err)
	restarts := 0
	for _, e := range events {
		if _, ok := e.Payload.(*deploymentv1.RestartRequested); ok {
			restarts++
		}
	}
	if restarts != 1 {
		t.Errorf("restarted %d times", restarts)
	}

	// Under another ID it is another command.
	_, err = p.client.CreateDeployment(under(t, uuid.NewString()), in)
	if problem.From(err).Code != problem.CodeValidation {
		t.Errorf("the same name under another ID: %v", err)
	}
}

func TestOfOneCommandGivenManyTimesAtOnceOneIsDone(t *testing.T) {
	t.Parallel()
	p := start(t)
	in := request("my-app")
	in.Tier = "btc-pro" // has no limit, so that nothing puts them in a row
	in.EnvVars = map[string]string{"TOKEN": "hunter2"}
	var last *schedulerv1.Deployment
	for round := range 6 {
		in.Subdomain = fmt.Sprint("my-app-", round)
		command := uuid.NewString()
		answers := make([]*schedulerv1.CreateDeploymentResponse, 16)
		var all sync.WaitGroup
		for i := range answers {
			all.Go(func() {
				var err error
				if answers[i], err = p.client.CreateDeployment(under(t, command), in); err != nil {
					t.Error(err)
				}
			})
			runtime.Gosched() // some find what others have begun
		}
		all.Wait()
		for _, a := range answers {
			if !proto.Equal(a, answers[0]) {
				t.Fatalf("got\n%v\nand\n%v", answers[0], a)
			}
		}
		last = answers[0].GetDeployment()
	}
	list, err := p.client.ListDeployments(t.Context(), &schedulerv1.ListDeploymentsRequest{Principal: owner()})
	must(t, err)
	if len(list.Deployments) != 6 {
		t.Errorf("%d deployments of 6 commands", len(list.Deployments))
	}
	// The environment can still be read: no attempt that lost has destroyed its key.
	p.node("n1", 16<<10)
	i := p.desired(last.Id, nodev1.DesiredState_DESIRED_STATE_RUNNING)
	if got := p.secrets("n1", i); got.Error != "" || got.Env["TOKEN"] != "hunter2" {
		t.Errorf("its node got %v", got)
	}
}
