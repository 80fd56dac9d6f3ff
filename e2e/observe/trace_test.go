package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/e2e/otlp"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// route is how the gateway names the request's span, and what its trace must hold.
type route struct {
	name  string
	spans []string
}

var (
	creating = route{"POST /api/deploy/apps", []string{
		"slipway.scheduler.v1.SchedulerService/CreateDeployment", "append_batch DeploymentRequested",
		"decide Schedule", "append DeploymentScheduled", "put VIEW_desired",
		"start instance", "ask for the environment", "give the environment", "podman pull", "podman create", "podman start", "record ImagePulled", "record ContainerStarted",
		"put VIEW_instances", "instance became healthy", "record InstanceHealthy",
		"put VIEW_routes", "wait for edges to serve the route", "record RouteBound",
		"decide MarkRunning", "append DeploymentRunning",
	}}
	restarting = route{"POST /api/deploy/apps/{id}/restart", []string{
		"slipway.scheduler.v1.SchedulerService/RestartDeployment", "append RestartRequested", "decide Schedule",
		"start instance", "podman pull", "record ContainerStarted", "instance became healthy", "record RouteBound",
		"append DeploymentRunning", "remove instance", "podman stop", "record ContainerRemoved",
	}}
	stopping = route{"POST /api/deploy/apps/{id}/stop", []string{
		"slipway.scheduler.v1.SchedulerService/StopDeployment", "append StopRequested", "remove instance", "podman stop", "podman remove",
		"record ContainerRemoved", "wait for edges to drop the route", "record RouteRemoved", "decide MarkStopped", "append DeploymentStopped",
	}}
	destroying = route{"DELETE /api/deploy/apps/{id}", []string{
		"slipway.scheduler.v1.SchedulerService/DestroyDeployment", "DestroyRequested", "delete VIEW_routes",
		"decide MarkDestroyed", "append DeploymentDestroyed",
	}}
)

func TestOneRequestIsOneTraceInOneDaemon(t *testing.T) {
	t.Parallel()
	oneRequestIsOneTrace(t, stack.Standalone, []string{"slipwayd"})
}

func TestOneRequestIsOneTraceThroughEveryProcess(t *testing.T) {
	t.Parallel()
	oneRequestIsOneTrace(t, stack.Processes,
		[]string{"slipway-gateway", "slipway-scheduler", "slipway-node-agent", "slipway-health", "slipway-proxy-config"})
}

// TestATraceSurvivesTheProcessesThatItRunsThrough kills the scheduler in the middle
// of a deploy, and lets health come late: both go on in the same trace.
func TestATraceSurvivesTheProcessesThatItRunsThrough(t *testing.T) {
	t.Parallel()
	r := receiver(t)
	s := platform(t, stack.Processes, r.Env()...)
	kill(t, s, "slipway-health")
	a := deploy(t, s, "survivor")
	eventually(t, "the deploy waits for health", func(context.Context) (bool, string, error) {
		missing := missingFrom(r.Spans(), []string{
			creating.name, "slipway.scheduler.v1.SchedulerService/CreateDeployment", "append_batch DeploymentRequested",
			"append DeploymentScheduled", "put VIEW_desired", "record ContainerStarted", "put VIEW_instances",
		}, nil)
		return len(missing) == 0, fmt.Sprintf("without %q", missing), nil
	})
	kill(t, s, "slipway-scheduler")
	for _, name := range []string{"slipway-scheduler", "slipway-health"} {
		if err := s.Restart(name); err != nil {
			t.Fatal(err)
		}
	}
	a.wait("running")
	whole(t, r, creating, nil)
}

func kill(t *testing.T, s *stack.Stack, name string) {
	t.Helper()
	if err := s.Process(name).Kill(); err != nil {
		t.Fatal(err)
	}
}

func oneRequestIsOneTrace(t *testing.T, start start, processes []string) {
	r := receiver(t)
	s := platform(t, start, r.Env()...)

	a := deploy(t, s, "traced")
	a.wait("running")
	deployed := whole(t, r, creating, processes)
	linesOf(t, s, deployed, a.id, "command taken", "started an instance", "an instance changed its health", "every living edge has applied the routes", "decided")

	a.ask(http.StatusOK, http.MethodPost, a.path("/restart"), nil)
	a.wait("running")
	whole(t, r, restarting, processes)

	a.ask(http.StatusOK, http.MethodPost, a.path("/stop"), nil)
	a.wait("stopped")
	whole(t, r, stopping, nil)

	a.ask(http.StatusOK, http.MethodDelete, a.path(""), nil)
	a.wait("destroyed")
	whole(t, r, destroying, nil)

	if got := len(roots(r, creating.name)); got != 1 {
		t.Errorf("one deploy is %d traces", got)
	}
}

// whole waits until the request's one trace has all that it must, from all
// processes, and every span hangs below the request's. It returns the trace's id.
func whole(t *testing.T, r *otlp.Receiver, want route, processes []string) string {
	t.Helper()
	var id string
	eventually(t, "the whole trace of "+want.name, func(context.Context) (bool, string, error) {
		first := roots(r, want.name)
		if len(first) == 0 {
			return false, "no such request", nil
		}
		id = first[len(first)-1].TraceID
		spans := r.Trace(id)
		missing := append(missingFrom(spans, want.spans, processes), orphans(spans)...)
		return len(missing) == 0, fmt.Sprintf("without %q\n%s", missing, otlp.Tree(spans)), nil
	})
	spans := r.Trace(id)
	for _, s := range spans {
		if s.Error != "" {
			t.Errorf("the span %s failed: %s", s.Name, s.Error)
		}
	}
	t.Logf("%s\n%s", want.name, otlp.Tree(spans))
	return id
}

// roots are the spans of requests of that name.
func roots(r *otlp.Receiver, name string) []otlp.Span {
	return slices.DeleteFunc(r.Spans(), func(s otlp.Span) bool { return s.Name != name || s.Parent != "" })
}

// orphans names the spans whose parent has not been exported.
func orphans(spans []otlp.Span) []string {
	ids := map[string]bool{}
	for _, s := range spans {
		ids[s.ID] = true
	}
	var names []string
	for _, s := range spans {
		if s.Parent != "" && !ids[s.Parent] {
			names = append(names, "the parent of "+s.Name)
		}
	}
	return names
}

func missingFrom(spans []otlp.Span, names, processes []string) []string {
	var missing []string
	for _, name := range names {
		if !slices.ContainsFunc(spans, func(s otlp.Span) bool { return s.Name == name || strings.HasSuffix(s.Name, " "+name) }) {
			missing = append(missing, name)
		}
	}
	for _, process := range processes {
		if !slices.ContainsFunc(spans, func(s otlp.Span) bool { return s.Service == process }) {
			missing = append(missing, "anything of "+process)
		}
	}
	return missing
}

// linesOf greps the logs for the trace: each message must be on a line of it.
func linesOf(t *testing.T, s *stack.Stack, trace, deployment string, messages ...string) {
	t.Helper()
	found := map[string]bool{}
	for line := range strings.Lines(logs(t, s)) {
		if !strings.Contains(line, trace) {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("a line of the log is no JSON: %s", line)
			continue
		}
		if fields["trace_id"] != trace || fields["span_id"] == nil {
			t.Errorf("a line names the trace elsewhere than in trace_id: %s", line)
		}
		if d, ok := fields["deployment"]; ok && d != deployment {
			t.Errorf("a line of another deployment is in the trace: %s", line)
		}
		found[fmt.Sprint(fields["msg"])] = true
	}
	for _, m := range messages {
		if !found[m] {
			t.Errorf("the log has no line %q with the trace's id; it has %v", m, found)
		}
	}
}
