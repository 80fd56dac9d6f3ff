package scheduler_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/scheduler"
)

// losing is a configuration with the shortest silence that there may be.
func losing() scheduler.Config {
	c := scheduler.DefaultConfig()
	c.NodeLossAfter = 5 * time.Second
	return c
}

// beats lets a node beat until stop is called.
func (p *platform) beats(id string, memoryMB uint32) (stop func()) {
	p.t.Helper()
	p.node(id, memoryMB)
	v, err := view.Open(p.t.Context(), p.js, subjects.BucketNodes, func() *nodev1.Node { return &nodev1.Node{} })
	must(p.t, err)
	return run(p.t, func(ctx context.Context) error {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			_, err := v.Put(ctx, id, &nodev1.Node{NodeId: id, MemoryMb: memoryMB, CpuMillicores: 4000, SeenAt: timestamppb.Now()})
			if err != nil && !errors.Is(err, view.ErrUnavailable) && ctx.Err() == nil {
				return err
			}
		}
	})
}

// is waits until the node has that status.
func (p *platform) is(id, status string) *adminv1.Node {
	p.t.Helper()
	var found *adminv1.Node
	within(p.t, "the node "+id+" is "+status, func() bool {
		out, err := p.service.ListNodes(p.t.Context(), &adminv1.ListNodesRequest{})
		must(p.t, err)
		for _, n := range out.Nodes {
			if n.NodeId == id && n.Status == status {
				found = n
			}
		}
		return found != nil
	})
	return found
}

// wished waits for what a node is told of a deployment's instance there.
func (p *platform) wished(deployment, node string, state nodev1.DesiredState) *nodev1.DesiredInstance {
	p.t.Helper()
	v, err := view.Open(p.t.Context(), p.js, subjects.BucketDesired, func() *nodev1.DesiredInstance { return &nodev1.DesiredInstance{} })
	must(p.t, err)
	var found *nodev1.DesiredInstance
	within(p.t, node+" is told "+state.String(), func() bool {
		entries, err := v.Snapshot(p.t.Context(), subjects.DesiredOfNode(node))
		must(p.t, err)
		for _, e := range entries {
			if e.Value.DeploymentId == deployment && e.Value.DesiredState == state {
				found = e.Value
			}
		}
		return found != nil
	})
	return found
}

const (
	wantRunning  = nodev1.DesiredState_DESIRED_STATE_RUNNING
	wantDraining = nodev1.DesiredState_DESIRED_STATE_DRAINING
	wantRemoved  = nodev1.DesiredState_DESIRED_STATE_REMOVED
)

// live deploys an app, which then runs on the only node there is.
func (p *platform) live(subdomain, node string) *schedulerv1.Deployment {
	p.t.Helper()
	d := p.create(request(subdomain))
	p.serve(p.wished(d.Id, node, wantRunning))
	p.status(d.Id, "running")
	return d
}

func TestALostNodesInstancesMoveAndItsReturnChangesNothing(t *testing.T) {
	t.Parallel()
	p := startWith(t, losing())
	silence := p.beats("n1", 1024)
	p.is("n1", "ready")
	d := p.live("moves", "n1")
	p.beats("n2", 1024)
	p.is("n2", "ready")

	silence()
	silent := time.Now()
	next := p.wished(d.Id, "n2", wantRunning)
	if took := time.Since(silent); took < 4*time.Second || took > 8*time.Second {
		t.Errorf("moved %s after the last heartbeat, with 5s allowed", took)
	}
	old := p.wished(d.Id, "n1", wantRemoved)
	if n := p.is("n1", "lost"); n.Instances != 1 {
		t.Errorf("the lost node is said to hold %d instances", n.Instances)
	}
	within(t, "it says why it is down", func() bool {
		got := p.get(d.Id)
		return got.Status == "running" && got.HealthStatus == "unhealthy" && strings.Contains(got.StatusReason, "n1 is lost")
	})
	// What the lost node has seen meanwhile comes late, and is about nobody.
	p.record(old, &deploymentv1.ContainerStarted{ReleaseId: old.ReleaseId, InstanceId: old.InstanceId, NodeId: "n1", Attempt: 2, Address: "10.0.0.9:3000"},
		&deploymentv1.InstanceHealthy{ReleaseId: old.ReleaseId, InstanceId: old.InstanceId, Attempt: 2})
	p.serve(next)
	within(t, "it serves again", func() bool {
		got := p.get(d.Id)
		return got.HealthStatus == "healthy" && got.StatusReason == "" && got.NodeId == "n2"
	})
	p.beats("n1", 1024)
	p.is("n1", "ready")
	p.record(old, &deploymentv1.ContainerRemoved{ReleaseId: old.ReleaseId, InstanceId: old.InstanceId, NodeId: "n1"})
	within(t, "nothing of it is left on n1", func() bool {
		n := p.is("n1", "ready")
		return n.Instances == 0 && n.UsedMemoryMb == 0
	})
	logs, err := p.client.ListLogs(t.Context(), &schedulerv1.ListLogsRequest{Principal: owner(), Id: d.Id})
	must(t, err)
	last := logs.Logs[len(logs.Logs)-1]
	if last.Action != "restart" || last.Status != "completed" || last.InitiatedBy != "" {
		t.Errorf("the audit log ends with %v", last)
	}
}

func TestADrainMovesWithoutAGapAndEndsWithUncordon(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.beats("n1", 1024)
	p.is("n1", "ready")
	d := p.live("drains", "n1")
	out, err := p.service.DrainNode(t.Context(), &adminv1.DrainNodeRequest{NodeId: "n1"})
	must(t, err)
	if out.Node.Status != "draining" || out.Node.MemoryMb != 1024 || out.Node.UsedMemoryMb != 256 {
		t.Fatalf("answered %v", out.Node)
	}
	within(t, "it says that it waits for room", func() bool {
		return strings.Contains(p.get(d.Id).StatusReason, "being drained. Every node is cordoned")
	})
	p.beats("n2", 1024)
	next := p.wished(d.Id, "n2", wantRunning)
	old := p.wished(d.Id, "n1", wantRunning)
	p.serve(next)
	p.wished(d.Id, "n1", wantDraining)
	p.record(old, &deploymentv1.ContainerRemoved{ReleaseId: old.ReleaseId, InstanceId: old.InstanceId, NodeId: "n1"})
	within(t, "n1 is empty", func() bool { return p.is("n1", "draining").Instances == 0 })
	if got := p.get(d.Id); got.HealthStatus != "healthy" || got.NodeId != "n2" || got.StatusReason != "" {
		t.Errorf("after the drain it is %v", got)
	}
	// Nothing new comes, though it is the emptiest.
	other := p.create(request("other"))
	p.wished(other.Id, "n2", wantRunning)
	back, err := p.service.UncordonNode(t.Context(), &adminv1.UncordonNodeRequest{NodeId: "n1"})
	must(t, err)
	if back.Node.Status != "ready" {
		t.Errorf("answered %v", back.Node)
	}
	third := p.create(request("third"))
	p.wished(third.Id, "n1", wantRunning)
	for _, id := range []string{"never", "no.id", ""} {
		_, err := p.service.DrainNode(t.Context(), &adminv1.DrainNodeRequest{NodeId: id})
		fault(t, err, problem.CodeNotFound)
	}
}

func TestANewSchedulerGivesEveryNodeTimeToBeHeard(t *testing.T) {
	t.Parallel()
	p := startWith(t, losing())
	silence := p.beats("n1", 1024)
	p.is("n1", "ready")
	d := p.live("patient", "n1")
	p.stop()
	silence()
	// Long enough for the heartbeat to count as too old, had one listened.
	within(t, "the heartbeat is old", func() bool {
		v, err := view.Open(t.Context(), p.js, subjects.BucketNodes, func() *nodev1.Node { return &nodev1.Node{} })
		must(t, err)
		entry, found, err := v.Get(t.Context(), "n1")
		must(t, err)
		return !found || time.Since(entry.Value.SeenAt.AsTime()) > 6*time.Second
	})
	p.again()
	p.beats("n1", 1024)
	p.beats("n2", 1024)
	p.is("n2", "ready")
	p.spares("n1", d.Id)
}

// spares wants that a node is not lost for as long as that could take, and never was.
func (p *platform) spares(id, deployment string) {
	p.t.Helper()
	never := time.Now().Add(6 * time.Second)
	within(p.t, id+" would have been lost by now", func() bool { return time.Now().After(never) })
	p.is(id, "ready")
	events, err := p.store.Load(p.t.Context(), subjects.Of(subjects.Platform, subjects.Node, id), 0)
	must(p.t, err)
	var names []string
	for _, e := range events {
		names = append(names, e.Type())
	}
	if !slices.Equal(names, []string{"NodeJoined"}) {
		p.t.Errorf("what happened to %s: %v", id, names)
	}
	moved, err := p.store.Load(p.t.Context(), subjects.Of("acme", subjects.Deployment, deployment), 0)
	must(p.t, err)
	if slices.ContainsFunc(moved, func(e eventstore.Recorded) bool { return e.Type() == "InstancesRescheduled" }) {
		p.t.Error("its instance was moved")
	}
}

func TestNoNodeIsLostBecauseNATSWasAway(t *testing.T) {
	t.Parallel()
	p := startWith(t, losing())
	p.beats("n1", 1024)
	p.is("n1", "ready")
	d := p.live("steady", "n1")
	p.beats("n2", 1024)
	p.is("n2", "ready")
	p.restartNATS(func() {
		enough := time.Now().Add(6 * time.Second)
		within(t, "all nodes were silent for long enough", func() bool { return time.Now().After(enough) })
	})
	within(t, "heartbeats are heard again", func() bool {
		out, err := p.service.ListNodes(t.Context(), &adminv1.ListNodesRequest{})
		must(t, err)
		return len(out.Nodes) == 2 && time.Since(out.Nodes[0].SeenAt.AsTime()) < time.Second
	})
	p.spares("n1", d.Id)
}
