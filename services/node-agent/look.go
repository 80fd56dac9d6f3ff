package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// defaultGrace is between SIGTERM and SIGKILL where nobody said another.
const defaultGrace = 10 * time.Second

// memory is what a worker remembers of its instance between looks. All of it can be
// lost: what matters is in the container's labels and times.
type memory struct {
	image string // id, once pulled
	// env is what the container was given, to keep it out of what is recorded; nil
	// when that is not known any more.
	env     map[string]string
	digest  string
	pulls   int  // pulls that failed in a row
	refused bool // the image cannot be pulled, and trying again cannot help
	gaveUp  bool // all attempts are used
	next    start
	last    *identity // of the container that runs or ran
	started string    // container whose start is recorded
	exited  string    // container whose exit is recorded
	drained time.Time // when the drain began
	removed bool      // the removal is recorded
}

// start is the next start of an instance.
type start struct {
	attempt  int
	failures int // starts in a row that ended early
	at       time.Time
}

// identity is whose container it is: from the wish, or from the container's labels
// when there is no wish any more.
type identity struct {
	org, deployment, release, instance, container string
	attempt                                       int
	traceParent                                   string
}

func identityOf(want *nodev1.DesiredInstance, c *runtime.Container) identity {
	id := identity{}
	if c != nil {
		id = identity{
			org: c.Labels[runtime.LabelOrg], deployment: c.Labels[runtime.LabelDeployment],
			release: c.Labels[runtime.LabelRelease], instance: c.Labels[runtime.LabelInstance],
			container: c.ID, attempt: attemptOf(*c),
		}
	}
	if want != nil {
		id.org, id.deployment, id.release, id.instance = want.GetOrgId(), want.GetDeploymentId(), want.GetReleaseId(), want.GetInstanceId()
		id.traceParent = want.GetTraceParent()
	}
	return id
}

// look compares one instance's wish with its container and does what is next. It
// returns after how long to look again; 0 means when something changes.
func (s *Service) look(ctx context.Context, i *instance) (time.Duration, error) {
	s.mu.Lock()
	want, containerID, stopping := i.want, i.container, s.stopping
	s.mu.Unlock()
	if stopping {
		return 0, nil
	}
	if want != nil {
		ctx = observe.WithTraceParent(ctx, want.GetTraceParent())
	}
	c, err := s.inspect(ctx, i, containerID)
	if err != nil {
		return 0, err
	}
	switch want.GetDesiredState() {
	case nodev1.DesiredState_DESIRED_STATE_RUNNING:
		return s.keepRunning(ctx, i, want, c)
	case nodev1.DesiredState_DESIRED_STATE_DRAINING:
		return s.drain(ctx, i, want, c)
	case nodev1.DesiredState_DESIRED_STATE_REMOVED:
		return 0, s.remove(ctx, i, want, c)
	}
	if want != nil {
		return 0, fmt.Errorf("desired state %v is not known", want.GetDesiredState())
	}
	return 0, s.unwanted(ctx, i, c)
}

// inspect returns the instance's container, nil for none. One that was seen to run
// and of which nothing was heard since runs still: most looks follow from a wish that
// changed, and asking the runtime would hold up those that start containers.
func (s *Service) inspect(ctx context.Context, i *instance, id string) (*runtime.Container, error) {
	if id == "" {
		return nil, nil
	}
	s.mu.Lock()
	running, happened := i.running, i.happened
	s.mu.Unlock()
	if running != nil && running.ID == id {
		return running, nil
	}
	c, err := s.deps.Runtime.Inspect(ctx, id)
	switch {
	case errors.Is(err, runtime.ErrNotFound):
		s.setContainer(i, "")
		return nil, nil
	case err != nil:
		return nil, err
	}
	s.sawRunning(i, c, happened)
	return &c, nil
}

// sawRunning remembers a container that runs, unless something was heard of it since
// happened was read.
func (s *Service) sawRunning(i *instance, c runtime.Container, happened int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.State == runtime.StateRunning && i.container == c.ID && i.happened == happened {
		i.running = &c
	}
}

// setContainer returns what to give sawRunning when that container runs.
func (s *Service) setContainer(i *instance, id string) (happened int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.container = id
	i.unsure()
	return i.happened
}

// drain lets requests finish before the instance goes.
func (s *Service) drain(ctx context.Context, i *instance, want *nodev1.DesiredInstance, c *runtime.Container) (time.Duration, error) {
	if c != nil && c.State == runtime.StateRunning {
		if i.memory.drained.IsZero() {
			i.memory.drained = time.Now()
		}
		if left := time.Until(i.memory.drained.Add(want.GetDeadlines().GetDrain().AsDuration())); left > 0 {
			return left, nil
		}
	}
	return 0, s.remove(ctx, i, want, c)
}

// remove ends the instance and says so, once.
func (s *Service) remove(ctx context.Context, i *instance, want *nodev1.DesiredInstance, c *runtime.Container) error {
	if c == nil && i.memory.removed {
		return nil
	}
	ctx, span := observe.Continue(ctx, s.deps.Tracer, "", "remove instance", trace.SpanKindInternal)
	defer span.End()
	if span.IsRecording() {
		span.SetAttributes(attribute.String("slipway.instance", i.id))
	}
	return observe.Failed(span, s.end(ctx, i, want, c))
}

func (s *Service) end(ctx context.Context, i *instance, want *nodev1.DesiredInstance, c *runtime.Container) error {
	who := identityOf(want, c)
	if c == nil && i.memory.last != nil {
		who.container = i.memory.last.container
	}
	if c != nil {
		grace := defaultGrace
		if g := want.GetDeadlines().GetGrace(); g != nil {
			grace = g.AsDuration()
		}
		if c.State == runtime.StateRunning {
			if err := s.deps.Runtime.Stop(ctx, c.ID, grace); err != nil {
				return err
			}
		}
		if err := s.sayLastWords(ctx, i, want, c.ID); err != nil {
			return err
		}
		if err := s.deps.Runtime.Remove(ctx, c.ID); err != nil {
			return err
		}
		s.setContainer(i, "")
		s.deps.Log.InfoContext(ctx, "removed an instance", "instance", i.id, "container", c.ID)
	}
	if err := s.record(ctx, who, "", &deploymentv1.ContainerRemoved{
		ReleaseId: who.release, InstanceId: who.instance, NodeId: s.cfg.NodeID, ContainerId: who.container,
	}); err != nil {
		return err
	}
	i.memory.removed, i.memory.last = true, nil
	return nil
}

// sayLastWords records how a container ended that was told to, with what it said
// last, before both go with it.
func (s *Service) sayLastWords(ctx context.Context, i *instance, want *nodev1.DesiredInstance, container string) error {
	if want == nil || i.memory.exited == container {
		return nil
	}
	c, err := s.deps.Runtime.Inspect(ctx, container)
	if errors.Is(err, runtime.ErrNotFound) || err == nil && c.StartedAt.IsZero() {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.record(ctx, identityOf(want, &c), attemptKey(identityOf(want, &c)), s.exitOf(ctx, i, want, c)); err != nil {
		return err
	}
	i.memory.exited = container
	return nil
}

// exitOf is the fact of a container's end, not yet saying whether it starts again.
func (s *Service) exitOf(ctx context.Context, i *instance, want *nodev1.DesiredInstance, c runtime.Container) *deploymentv1.ContainerExited {
	who := identityOf(nil, &c)
	lines := s.lastLines(ctx, i, want, c.ID)
	return &deploymentv1.ContainerExited{
		ReleaseId: who.release, InstanceId: who.instance, NodeId: s.cfg.NodeID, ContainerId: c.ID,
		ExitCode: int32(c.ExitCode), OomKilled: c.OOMKilled, LastLines: lines,
		ExitedAt: timestamp(c.FinishedAt), Attempt: uint32(who.attempt),
	}
}

// unwanted removes a container of ours that nobody wishes for, after asking anew:
// a wish may have come while we looked.
func (s *Service) unwanted(ctx context.Context, i *instance, c *runtime.Container) error {
	if c == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if i.want == nil && i.container == "" && !i.dirty {
			s.forget(i)
		}
		return nil
	}
	entry, found, err := s.deps.Desired.Get(ctx, subjects.DesiredKey(s.cfg.NodeID, i.id))
	if err != nil {
		return fmt.Errorf("ask whether the instance is wanted: %w", err)
	}
	if found {
		s.mu.Lock()
		defer s.mu.Unlock()
		i.want, i.dirty = entry.Value, true
		return nil
	}
	if err := s.remove(ctx, i, nil, c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i.want == nil {
		s.forget(i)
	}
	return nil
}

// keepRunning makes the instance run, and run again after it ended.
func (s *Service) keepRunning(ctx context.Context, i *instance, want *nodev1.DesiredInstance, c *runtime.Container) (time.Duration, error) {
	i.memory.removed, i.memory.drained = false, time.Time{}
	switch {
	case c == nil && i.memory.last != nil:
		return s.vanished(ctx, i, want)
	case c == nil:
		return s.startWhenDue(ctx, i, want, nil)
	case c.State == runtime.StateRunning:
		return 0, s.sayStarted(ctx, i, want, *c)
	case c.State == runtime.StateCreated:
		// The agent ended between making and starting it, or the machine restarted. It is
		// made anew: its network may be gone.
		if i.memory.next.attempt == 0 {
			i.memory.next = start{attempt: max(attemptOf(*c), 1), failures: number(c.Labels[runtime.LabelFailures])}
		}
		return s.startWhenDue(ctx, i, want, c)
	default:
		return s.ended(ctx, i, want, *c)
	}
}

func (s *Service) sayStarted(ctx context.Context, i *instance, want *nodev1.DesiredInstance, c runtime.Container) error {
	who := identityOf(want, &c)
	i.memory.last, i.memory.gaveUp = &who, false
	if i.memory.started == c.ID || want.GetLastContainerId() == c.ID {
		i.memory.started = c.ID
		return nil
	}
	if c.Address == "" {
		return fmt.Errorf("container %s runs, but at no address that this node gave it: remove it and it is made anew", c.ID)
	}
	if err := s.record(ctx, who, attemptKey(who), &deploymentv1.ContainerStarted{
		ReleaseId: who.release, InstanceId: who.instance, NodeId: s.cfg.NodeID, ContainerId: c.ID,
		Address: c.Address, StartedAt: timestamp(c.StartedAt), Attempt: uint32(who.attempt),
	}); err != nil {
		return err
	}
	i.memory.started = c.ID
	return nil
}

// ended records how a container ended and starts the instance again when it is due.
func (s *Service) ended(ctx context.Context, i *instance, want *nodev1.DesiredInstance, c runtime.Container) (time.Duration, error) {
	who := identityOf(want, &c)
	if s.stoppedByUs(c.ID) {
		if i.memory.next.attempt <= who.attempt {
			i.memory.next = start{attempt: who.attempt + 1}
		}
		return s.startWhenDue(ctx, i, want, &c)
	}
	if i.memory.exited == c.ID {
		return s.startWhenDue(ctx, i, want, &c)
	}
	next, more := nextStart(who.attempt, number(c.Labels[runtime.LabelFailures]), c.StartedAt, c.FinishedAt, want.GetMaxAttempts())
	return s.recordEnd(ctx, i, want, &c, who, s.exitOf(ctx, i, want, c), next, more)
}

// vanished is for a container that was removed behind the agent's back.
func (s *Service) vanished(ctx context.Context, i *instance, want *nodev1.DesiredInstance) (time.Duration, error) {
	who := *i.memory.last
	now := time.Now()
	next, more := nextStart(who.attempt, i.memory.next.failures, now, now, want.GetMaxAttempts())
	fact := &deploymentv1.ContainerExited{
		ReleaseId: who.release, InstanceId: who.instance, NodeId: s.cfg.NodeID, ContainerId: who.container,
		ExitCode: exitKilled, LastLines: []string{"the container was removed on its node, not by Slipway"},
		ExitedAt: timestamp(now), Attempt: uint32(who.attempt),
	}
	if i.memory.exited == who.container { // it had ended before it was removed
		i.memory.last = nil
		return s.startWhenDue(ctx, i, want, nil)
	}
	after, err := s.recordEnd(ctx, i, want, nil, who, fact, next, more)
	if err == nil {
		i.memory.last = nil
	}
	return after, err
}

func (s *Service) recordEnd(ctx context.Context, i *instance, want *nodev1.DesiredInstance, c *runtime.Container,
	who identity, fact *deploymentv1.ContainerExited, next start, more bool,
) (time.Duration, error) {
	if more {
		fact.RestartAt = timestamp(next.at)
	}
	if err := s.record(ctx, who, attemptKey(who), fact); err != nil {
		return 0, err
	}
	i.memory.exited, i.memory.next, i.memory.gaveUp = who.container, next, !more
	s.deps.Log.InfoContext(ctx, "a container ended", "instance", i.id, "container", who.container,
		"exit_code", fact.GetExitCode(), "oom_killed", fact.GetOomKilled(), "restart", more)
	return s.startWhenDue(ctx, i, want, c)
}

func (s *Service) stoppedByUs(container string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped[container]
}

func (s *Service) record(ctx context.Context, who identity, key string, payload proto.Message) error {
	return s.facts.record(ctx, s.fact(ctx, who, key, payload))
}
