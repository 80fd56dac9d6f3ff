package readmodel_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/projection/pgtest"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/readmodel"
)

var postgres *pgtest.Cluster

func TestMain(m *testing.M) {
	cluster, err := pgtest.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	postgres = cluster
	code := m.Run()
	if err := cluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// world is a log and the read model that follows it.
type world struct {
	t     *testing.T
	store *memory.Store
	pool  *pgxpool.Pool
	rows  *projection.Runner
	n     int
	last  uint64
}

func begin(t *testing.T) *world {
	w := &world{t: t, store: memory.New()}
	w.rows, w.pool = follow(t, w.store)
	return w
}

// follow runs the read model of a log in a database of its own.
func follow(t *testing.T, store eventstore.Store) (*projection.Runner, *pgxpool.Pool) {
	t.Helper()
	pool := postgres.Database(t)
	r, err := projection.New(pool, store, readmodel.Projection(store), slog.New(slog.DiscardHandler))
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the read model stopped with %v", err)
		}
	})
	return r, pool
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) say(id string, events ...proto.Message) {
	w.t.Helper()
	for _, e := range events {
		w.n++
		sequence, err := w.store.Record(w.t.Context(), eventstore.Event{
			Aggregate: subjects.Of("acme", subjects.Deployment, id), ID: fmt.Sprint(w.n), Payload: e,
			Time: time.Date(2026, 1, 1, 0, 0, w.n, 0, time.UTC), Source: "test",
		})
		must(w.t, err)
		w.last = sequence
	}
}

func (w *world) caughtUp() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	must(w.t, w.rows.WaitFor(ctx, w.last))
}

func release(id string, number uint32) *deploymentv1.Release {
	return &deploymentv1.Release{Id: fmt.Sprintf("%s-r%d", id, number), Number: number, Image: "ghcr.io/a/b:1", ContainerName: fmt.Sprintf("%s-%d", id, number)}
}

func (w *world) requested(id string) {
	w.say(id, &deploymentv1.DeploymentRequested{DeploymentId: id, OrgId: "acme", OperatorId: "op", AppId: "app", Subdomain: id,
		Host: id + ".example.com", Release: release(id, 1), Tier: &deploymentv1.Tier{Id: "t1", MemoryLimitMb: 256, CpuLimitMillicores: 250}})
}

// live takes a release of the deployment to its place.
func (w *world) live(id string, number uint32) {
	r := release(id, number)
	i := fmt.Sprintf("%s-i%d", id, number)
	w.say(id,
		&deploymentv1.DeploymentScheduled{ReleaseId: r.Id, Placements: []*deploymentv1.Placement{{InstanceId: i, NodeId: "n1", ContainerName: r.ContainerName}}},
		&deploymentv1.ContainerStarted{ReleaseId: r.Id, InstanceId: i, NodeId: "n1", Attempt: 1, StartedAt: timestamppb.New(time.Unix(1, 0))},
		&deploymentv1.InstanceHealthy{ReleaseId: r.Id, InstanceId: i, Attempt: 1},
		&deploymentv1.RouteBound{ReleaseId: r.Id, InstanceIds: []string{i}},
		&deploymentv1.DeploymentRunning{ReleaseId: r.Id})
}

func (w *world) crashed(id, line string, attempt uint32) {
	w.say(id, &deploymentv1.ContainerExited{ReleaseId: id + "-r1", InstanceId: id + "-i1", NodeId: "n1", ExitCode: 1, Attempt: attempt,
		LastLines: []string{line}, RestartAt: timestamppb.New(time.Unix(2, 0))})
}

func (w *world) recovered(id string, attempt uint32) {
	w.say(id, &deploymentv1.ContainerStarted{ReleaseId: id + "-r1", InstanceId: id + "-i1", NodeId: "n1", Attempt: attempt, StartedAt: timestamppb.New(time.Unix(3, 0))},
		&deploymentv1.InstanceHealthy{ReleaseId: id + "-r1", InstanceId: id + "-i1", Attempt: attempt})
}

// journeys are deployments that go different ways, some steps together, some apart.
func (w *world) journeys(n int) {
	for i := range n {
		id := fmt.Sprintf("d%d", i)
		w.requested(id)
		w.live(id, 1)
		switch i % 5 {
		case 0:
			w.crashed(id, "out of luck", 1)
			w.caughtUp()
			w.recovered(id, 2)
			w.crashed(id, "again", 2)
		case 1:
			w.say(id, &deploymentv1.RestartRequested{Release: release(id, 2), InitiatedBy: "app"})
			w.live(id, 2)
		case 2:
			w.say(id, &deploymentv1.RestartRequested{Release: release(id, 2), InitiatedBy: "app"},
				&deploymentv1.ReleaseFailed{ReleaseId: id + "-r2", Code: "image_pull_failed", Reason: "There is no such image."})
		case 3:
			w.say(id, &deploymentv1.StopRequested{InitiatedBy: "app"}, &deploymentv1.DeploymentStopped{})
		case 4:
			w.say(id, &deploymentv1.DestroyRequested{InitiatedBy: "app"})
			w.caughtUp()
			w.say(id, &deploymentv1.DeploymentDestroyed{})
		}
	}
	w.caughtUp()
}

func dump(t *testing.T, pool *pgxpool.Pool, schema string) string {
	t.Helper()
	var all strings.Builder
	for _, table := range []string{"deployments", "deployment_logs", "dead_letters"} {
		rows, err := pool.Query(t.Context(), fmt.Sprintf("SELECT (to_jsonb(x) - 'failed_at')::text FROM %s.%s x ORDER BY 1", schema, table))
		must(t, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		must(t, err)
		fmt.Fprintf(&all, "%s\n%s\n", table, strings.Join(lines, "\n"))
	}
	return all.String()
}

func (w *world) dump() string { return dump(w.t, w.pool, w.rows.Schema()) }

// fresh are the rows that the log gives in an empty database.
func (w *world) fresh() string {
	w.t.Helper()
	other := &world{t: w.t, store: w.store, last: w.last}
	other.rows, other.pool = follow(w.t, w.store)
	other.caughtUp()
	return other.dump()
}

func (w *world) same(what, want, got string) {
	w.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s:\n%s", what, diff)
	}
}

func TestRowsDoNotDependOnHowTheyCameToBe(t *testing.T) {
	t.Parallel()
	w := begin(t)
	w.journeys(40)
	grown := w.dump()
	if strings.Count(grown, "\n") < 40+80 || !strings.Contains(grown, "out of luck") {
		t.Fatalf("the rows are few:\n%s", grown)
	}
	w.same("grown and at once", w.fresh(), grown)
	done, err := w.rows.Rebuild(t.Context(), false)
	must(t, err)
	if !done.Identical() || !done.Swapped {
		t.Fatalf("%+v", done)
	}
	w.same("rebuilt", grown, w.dump())
	w.requested("after")
	w.live("after", 1)
	w.crashed("d0", "after the rebuild", 3)
	w.caughtUp()
	w.same("grown on after a rebuild", w.fresh(), w.dump())
}

func TestAnAppThatPrintsNULIsShown(t *testing.T) {
	t.Parallel()
	w := begin(t)
	w.requested("d1")
	w.live("d1", 1)
	w.crashed("d1", "core \x00 dumped, \\u0000 is what it said", 1)
	w.say("d1", &deploymentv1.InstanceUnhealthy{ReleaseId: "d1-r1", InstanceId: "d1-i1", Attempt: 1, Reason: "NUL \x00"})
	w.caughtUp()
	letters, err := w.rows.DeadLetters(t.Context())
	must(t, err)
	if len(letters) != 0 {
		t.Fatalf("a dead letter: %v", letters[0].Error)
	}
	logs, err := readmodel.Rows{Pool: w.pool, Schema: w.rows.Schema()}.Logs(t.Context(), "d1")
	must(t, err)
	if text := fmt.Sprint(logs); !strings.Contains(text, "core \uFFFD dumped") || !strings.Contains(text, `u0000 is what it said`) {
		t.Errorf("the audit log says %s", text)
	}
}

// The database is made to refuse what one event says; then it is mended.
func TestAPoisonedEventBlocksNothingAndItsReplayMakesTheRowsWhole(t *testing.T) {
	t.Parallel()
	w := begin(t)
	w.requested("before")
	w.caughtUp()
	table := w.rows.Schema() + ".deployment_logs"
	_, err := w.pool.Exec(t.Context(), "ALTER TABLE "+table+" ADD CONSTRAINT planted CHECK (details->>'reason' IS NULL OR details->'last_lines'->>0 <> 'poison')")
	must(t, err)
	w.requested("ill")
	w.live("ill", 1)
	w.crashed("ill", "poison", 1)
	poison := w.last
	w.requested("well")
	w.live("well", 1)
	w.recovered("ill", 2)
	w.caughtUp()
	rows := readmodel.Rows{Pool: w.pool, Schema: w.rows.Schema()}
	if d, err := rows.Get(t.Context(), "well"); err != nil || d.Status != "running" {
		t.Errorf("what follows is %v, %v", d, err)
	}
	if d, err := rows.Get(t.Context(), "ill"); err != nil || d.HealthStatus != "healthy" {
		t.Errorf("the deployment itself is %v, %v", d, err)
	}
	letter, err := w.rows.DeadLetter(t.Context(), poison)
	if err != nil || !strings.Contains(letter.Error, "planted") {
		t.Fatalf("%+v, %v", letter, err)
	}
	if err := w.rows.Replay(t.Context(), poison); err == nil {
		t.Error("it was taken in although the database refuses it")
	}
	done, err := w.rows.Rebuild(t.Context(), false)
	must(t, err)
	if done.Swapped || !strings.Contains(strings.Join(done.Differences, "\n"), "was taken in by the rebuild") {
		t.Errorf("the rebuild, which is not refused, found %+v", done)
	}
	_, err = w.pool.Exec(t.Context(), "ALTER TABLE "+table+" DROP CONSTRAINT planted")
	must(t, err)
	must(t, w.rows.Replay(t.Context(), poison))
	w.same("replayed", w.fresh(), w.dump())
	done, err = w.rows.Rebuild(t.Context(), false)
	must(t, err)
	if !done.Identical() || !done.Swapped {
		t.Errorf("%+v", done)
	}
}
