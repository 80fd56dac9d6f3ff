package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/readmodel"
)

func (p *platform) execute(statement string) {
	p.t.Helper()
	if _, err := p.pool.Exec(p.t.Context(), statement); err != nil {
		p.t.Fatal(err)
	}
}

func (p *platform) letters() []*adminv1.DeadLetter {
	p.t.Helper()
	out, err := p.admin.ListDeadLetters(p.t.Context(), &adminv1.ListDeadLettersRequest{})
	must(p.t, err)
	return out.DeadLetters
}

func (p *platform) rebuild(accept bool) *adminv1.RebuildProjectionResponse {
	p.t.Helper()
	out, err := p.admin.RebuildProjection(p.t.Context(), &adminv1.RebuildProjectionRequest{Name: readmodel.Name, AcceptDifferences: accept})
	must(p.t, err)
	return out
}

func TestAPoisonedEventIsADeadLetterThatAdminsSettle(t *testing.T) {
	t.Parallel()
	p := start(t)
	table := fmt.Sprintf("proj_%s_v%d.deployment_logs", readmodel.Name, readmodel.Version)
	p.execute("ALTER TABLE " + table + " ADD CONSTRAINT planted CHECK (action <> 'create')")
	in := request("ill")
	in.EnvVars = map[string]string{"TOKEN": "s3cr3t-value"}
	ill := p.create(in)
	within(t, "the event is given up", func() bool { return len(p.letters()) == 1 })
	p.execute("ALTER TABLE " + table + " DROP CONSTRAINT planted; ALTER TABLE " + table + " ADD CONSTRAINT planted CHECK (deployment_id <> '" + ill.Id + "') NOT VALID")
	well := p.create(request("well"))
	if got := p.get(well.Id); got.Status != "pending" {
		t.Errorf("what follows is %v", got)
	}

	letter := p.letters()[0]
	if letter.EventType != "DeploymentRequested" || letter.Projection != "deployments" || !strings.Contains(letter.Subject, ill.Id) ||
		!strings.Contains(letter.Error, "planted") || !letter.FailedAt.IsValid() || letter.Data != nil {
		t.Errorf("listed as %v", letter)
	}
	one, err := p.admin.GetDeadLetter(t.Context(), &adminv1.GetDeadLetterRequest{Id: letter.Id})
	must(t, err)
	if data := one.DeadLetter.Data.AsMap(); data["subdomain"] != "ill" || strings.Contains(fmt.Sprint(data), "ciphertext") {
		t.Errorf("shown as %v", data)
	}
	state, err := p.admin.GetProjection(t.Context(), &adminv1.GetProjectionRequest{Name: "deployments"})
	must(t, err)
	if got := state.Projection; got.DeadLetters < 1 || got.Checkpoint == 0 || got.Trouble != "" || got.Rebuild != nil {
		t.Errorf("the projection is %v", got)
	}

	_, err = p.admin.ReplayDeadLetter(t.Context(), &adminv1.ReplayDeadLetterRequest{Id: letter.Id})
	fault(t, err, problem.CodeInvalidState)
	p.execute("ALTER TABLE " + table + " DROP CONSTRAINT planted")
	_, err = p.admin.ReplayDeadLetter(t.Context(), &adminv1.ReplayDeadLetterRequest{Id: letter.Id})
	must(t, err)
	if left := p.letters(); len(left) != 0 {
		t.Errorf("left after the replay: %v", left)
	}
	logs, err := p.client.ListLogs(t.Context(), &schedulerv1.ListLogsRequest{Principal: owner(), Id: ill.Id})
	must(t, err)
	if len(logs.Logs) == 0 || logs.Logs[0].Action != "create" {
		t.Errorf("the audit log after the replay: %v", logs.Logs)
	}
	if out := p.rebuild(false); !out.Identical || !out.Swapped || out.Rows < 4 || out.Events < 2 {
		t.Errorf("rebuilt: %v", out)
	}
	p.get(ill.Id)
}

func TestADroppedDeadLetterIsNotListedAgain(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.execute(fmt.Sprintf("ALTER TABLE proj_%s_v%d.deployment_logs ADD CONSTRAINT planted CHECK (action <> 'create')", readmodel.Name, readmodel.Version))
	p.create(request("ill"))
	within(t, "the event is given up", func() bool { return len(p.letters()) == 1 })
	id := p.letters()[0].Id
	_, err := p.admin.DropDeadLetter(t.Context(), &adminv1.DropDeadLetterRequest{Id: id})
	must(t, err)
	if left := p.letters(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	for _, id := range []string{id, "deployments-999999", "deployments-", "deployments-01", "deployments--1", "other-1", "", "deployments-99999999999999999999"} {
		_, err := p.admin.ReplayDeadLetter(t.Context(), &adminv1.ReplayDeadLetterRequest{Id: id})
		fault(t, err, problem.CodeNotFound)
		_, err = p.admin.DropDeadLetter(t.Context(), &adminv1.DropDeadLetterRequest{Id: id})
		fault(t, err, problem.CodeNotFound)
		_, err = p.admin.GetDeadLetter(t.Context(), &adminv1.GetDeadLetterRequest{Id: id})
		fault(t, err, problem.CodeNotFound)
	}
	// The rebuild can take the event in, which the live rows could not: that is told.
	out := p.rebuild(false)
	if out.Swapped || out.Identical || len(out.Differences) == 0 {
		t.Errorf("rebuilt: %v", out)
	}
	if out := p.rebuild(true); !out.Swapped || out.Identical {
		t.Errorf("rebuilt, differences accepted: %v", out)
	}
	if out := p.rebuild(false); !out.Swapped || !out.Identical {
		t.Errorf("rebuilt again: %v", out)
	}
	_, err = p.admin.RebuildProjection(t.Context(), &adminv1.RebuildProjectionRequest{Name: "other"})
	fault(t, err, problem.CodeNotFound)
}

func TestRebuildsGoOnWhileCommandsFlow(t *testing.T) {
	t.Parallel()
	p := start(t)
	done := make(chan error, 1)
	go func() {
		for range 4 {
			out, err := p.admin.RebuildProjection(t.Context(), &adminv1.RebuildProjectionRequest{Name: readmodel.Name})
			if err == nil && (!out.Identical || !out.Swapped) {
				err = fmt.Errorf("%v", out)
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	var made []string
	for i := 0; len(done) == 0 || i < 3; i++ {
		in := request(fmt.Sprintf("app-%d", i))
		in.Tier = "btc-pro"
		d := p.create(in)
		made = append(made, d.Id)
		p.get(d.Id) // a read sees the write before it, whatever is swapped
	}
	must(t, <-done)
	for _, id := range made {
		p.get(id)
	}
}

// The event is in the log as any other; no row can hold what it says: PostgreSQL's
// indexes take 2.7 kB.
func TestAPoisonedEventInTheLogBlocksNothing(t *testing.T) {
	t.Parallel()
	p := start(t)
	noise := make([]byte, 4000)
	for i := range noise {
		noise[i] = byte('a' + rand.IntN(26))
	}
	id := uuid.NewString()
	_, err := p.store.Record(t.Context(), eventstore.Event{Aggregate: subjects.Of("acme", subjects.Deployment, id), ID: id, Time: time.Now(), Source: "test",
		Payload: &deploymentv1.DeploymentRequested{DeploymentId: id, OrgId: "acme", OperatorId: string(noise), AppId: "app", Subdomain: "poison", Host: "poison.apps.localhost",
			Tier: &deploymentv1.Tier{Id: "t1", MemoryLimitMb: 256, CpuLimitMillicores: 250}, Release: &deploymentv1.Release{Id: "r1", Number: 1, Image: "ghcr.io/acme/app:1", ContainerName: "poison-1",
				Deadlines: &deploymentv1.Deadlines{Placement: durationpb.New(time.Hour)}}}})
	must(t, err)
	d := p.create(request("well"))
	if got := p.get(d.Id); got.Status != "pending" {
		t.Errorf("what follows is %v", got)
	}
	// What the scheduler says of that deployment cannot be shown either.
	within(t, "its events are given up", func() bool { return len(p.letters()) >= 2 })
	for _, letter := range p.letters() {
		if !strings.Contains(letter.Subject, id) {
			t.Errorf("%s is no event of the poisoned deployment", letter.Subject)
		}
		_, err := p.admin.ReplayDeadLetter(t.Context(), &adminv1.ReplayDeadLetterRequest{Id: letter.Id})
		fault(t, err, problem.CodeInvalidState)
		_, err = p.admin.DropDeadLetter(t.Context(), &adminv1.DropDeadLetterRequest{Id: letter.Id})
		must(t, err)
	}
	if out := p.rebuild(false); !out.Identical || !out.Swapped || len(p.letters()) != 0 {
		t.Errorf("rebuilt: %v, %d dead letters wait again", out, len(p.letters()))
	}
}
