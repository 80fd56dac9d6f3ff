package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

const (
	lastLines      = 20
	lastLinesBytes = 8 << 10
	exitKilled     = 137

	restartFirst    = time.Second
	restartFirstNew = 500 * time.Millisecond // while the release is not live yet
	restartMost     = time.Minute
	// steady is how long a container must have run for its end to count as the first.
	steady = 5 * time.Minute

	pullPauseFirst = time.Second
	// rolloutPulls is how often an image is asked for whose registry does not answer:
	// with the pauses between, about 15 seconds.
	rolloutPulls = 5
)

// nextStart says when an instance whose container ended is started again; more is
// false when all attempts are used. It depends on what the runtime keeps only, so
// an agent that comes back says the same.
func nextStart(attempt, failures int, started, finished time.Time, maxAttempts uint32) (next start, more bool) {
	if finished.Sub(started) >= steady {
		failures = 0
	}
	first := restartFirst
	if maxAttempts > 0 {
		first = restartFirstNew
	}
	next = start{attempt: attempt + 1, failures: failures + 1, at: finished.Add(doubling(first, failures, restartMost))}
	return next, maxAttempts == 0 || attempt < int(maxAttempts)
}

func doubling(first time.Duration, times int, most time.Duration) time.Duration {
	return min(first<<min(times, 16), most)
}

// startWhenDue starts the instance now or says after how long it may. c is what is
// left of the container before, nil for none.
func (s *Service) startWhenDue(ctx context.Context, i *instance, want *nodev1.DesiredInstance, c *runtime.Container) (time.Duration, error) {
	m := &i.memory
	if m.refused {
		return 0, nil
	}
	if m.gaveUp {
		// The bound may have been lifted since.
		if max := want.GetMaxAttempts(); max > 0 && m.next.attempt > int(max) {
			return 0, nil
		}
		m.gaveUp = false
	}
	if m.next.attempt == 0 {
		m.next = start{attempt: int(want.GetLastAttempt()) + 1}
	}
	if left := time.Until(m.next.at); left > 0 {
		return left, nil
	}
	ctx, span := observe.Continue(ctx, s.deps.Tracer, "", "start instance", trace.SpanKindInternal)
	defer span.End()
	if span.IsRecording() {
		span.SetAttributes(attribute.String("slipway.node", s.cfg.NodeID), attribute.String("slipway.instance", i.id),
			attribute.String("slipway.image", want.GetImage()), attribute.Int("slipway.attempt", m.next.attempt))
	}
	after, err := s.startInstance(ctx, i, want, c)
	return after, observe.Failed(span, err)
}

func (s *Service) startInstance(ctx context.Context, i *instance, want *nodev1.DesiredInstance, c *runtime.Container) (time.Duration, error) {
	m := &i.memory
	if c != nil && m.image == "" {
		m.image = c.ImageID
	}
	wanted, stopWaiting := s.interruptible(ctx, i)
	defer stopWaiting()
	if m.image == "" {
		if done, after, err := s.pull(ctx, wanted, i, want); !done {
			return after, err
		}
	}
	var env map[string]string
	if want.GetHasEnv() {
		var err error
		env, err = s.environment(wanted, i.id)
		switch {
		case errors.Is(err, ErrSecretsRefused):
			return s.startFailed(ctx, i, want, err)
		case err != nil:
			return 0, fmt.Errorf("ask for the environment: %w", err)
		}
		m.env = env
	}
	if wanted.Err() != nil {
		return 0, wanted.Err()
	}
	return s.makeContainer(ctx, i, want, env)
}

func (s *Service) environment(ctx context.Context, instance string) (map[string]string, error) {
	ctx, span := observe.Continue(ctx, s.deps.Tracer, "", "ask for the environment", trace.SpanKindClient)
	defer span.End()
	env, err := s.deps.Secrets.Env(ctx, s.cfg.NodeID, instance)
	return env, observe.Failed(span, err)
}

// interruptible is ctx that also ends when the instance shall not run any more.
func (s *Service) interruptible(ctx context.Context, i *instance) (context.Context, func()) {
	wanted, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i.want.GetDesiredState() != nodev1.DesiredState_DESIRED_STATE_RUNNING {
		cancel()
	}
	i.interrupt = cancel
	return wanted, func() {
		s.mu.Lock()
		i.interrupt = nil
		s.mu.Unlock()
		cancel()
	}
}

// pull makes the image present; done is false when it did not, and is to be looked
// at again after that long, or not at all.
func (s *Service) pull(ctx, wanted context.Context, i *instance, want *nodev1.DesiredInstance) (done bool, after time.Duration, err error) {
	release, err := enter(wanted, s.pullSlots)
	if err != nil {
		return false, 0, err
	}
	defer release()
	m := &i.memory
	began := time.Now()
	image, err := s.deps.Runtime.Pull(wanted, pinned(want.GetImage(), want.GetDigest()))
	if wanted.Err() != nil {
		return false, 0, wanted.Err()
	}
	who := identityOf(want, nil)
	if err != nil {
		s.metrics.pulls.WithLabelValues("failed").Inc()
		m.pulls++
		// A release that is live is pulled again for as long as it takes; one on its
		// way there is given up soon, for somebody waits for it.
		m.refused = want.GetMaxAttempts() > 0 && (runtime.IsFinal(err) || m.pulls >= rolloutPulls)
		s.deps.Log.InfoContext(ctx, "an image could not be pulled", "instance", i.id, "final", m.refused, "error", err)
		err = s.record(ctx, who, strconv.Itoa(m.pulls), &deploymentv1.ImagePullFailed{
			ReleaseId: who.release, InstanceId: who.instance, NodeId: s.cfg.NodeID, Image: want.GetImage(),
			Reason: reason(err), Final: m.refused, Attempt: uint32(m.pulls),
		})
		if err != nil || m.refused {
			return false, 0, err
		}
		return false, doubling(pullPauseFirst, m.pulls-1, restartMost), nil
	}
	result := "fetched"
	if image.Cached {
		result = "cached"
	}
	s.metrics.pulls.WithLabelValues(result).Inc()
	if err := s.images.pulled(image); err != nil {
		s.deps.Log.WarnContext(ctx, "an image will not be pruned", "image", image.ID, "error", err)
	}
	if err := s.record(ctx, who, "", &deploymentv1.ImagePulled{
		ReleaseId: who.release, InstanceId: who.instance, NodeId: s.cfg.NodeID,
		Image: want.GetImage(), Digest: image.Digest, Took: durationpb.New(time.Since(began)),
	}); err != nil {
		return false, 0, err
	}
	m.image, m.digest, m.pulls = image.ID, image.Digest, 0
	return true, 0, nil
}

func (s *Service) makeContainer(ctx context.Context, i *instance, want *nodev1.DesiredInstance, env map[string]string) (time.Duration, error) {
	release, err := enter(ctx, s.makeSlots)
	if err != nil {
		return 0, err
	}
	defer release()
	m := &i.memory
	began := time.Now()
	id, err := s.deps.Runtime.Create(ctx, s.spec(want, m, env))
	if errors.Is(err, runtime.ErrNoImage) {
		// Somebody removed it after the pull, which says nothing of the instance: it
		// is pulled again.
		m.image = ""
		return 0, err
	}
	if err != nil {
		return s.couldNotStart(ctx, i, want, began, err)
	}
	happened := s.setContainer(i, id)
	started, err := s.deps.Runtime.Start(ctx, id)
	if err != nil {
		after, err := s.couldNotStart(ctx, i, want, began, err)
		if removeErr := s.deps.Runtime.Remove(ctx, id); removeErr == nil {
			s.setContainer(i, "")
		}
		return after, err
	}
	s.metrics.starts.WithLabelValues("started").Observe(time.Since(began).Seconds())
	s.deps.Log.InfoContext(ctx, "started an instance", "instance", i.id, "container", id, "address", started.Address, "attempt", m.next.attempt)
	c := runtime.Container{
		ID: id, Name: want.GetContainerName(), ImageID: m.image, State: runtime.StateRunning,
		Address: started.Address, StartedAt: started.StartedAt, Labels: s.labels(want, m.next),
	}
	s.sawRunning(i, c, happened)
	return 0, s.sayStarted(ctx, i, want, c)
}

// couldNotStart tells a runtime that does not answer, which says nothing of the
// instance, from one that refuses it.
func (s *Service) couldNotStart(ctx context.Context, i *instance, want *nodev1.DesiredInstance, began time.Time, cause error) (time.Duration, error) {
	s.metrics.starts.WithLabelValues("failed").Observe(time.Since(began).Seconds())
	if err := s.deps.Runtime.Ping(ctx); err != nil {
		return 0, fmt.Errorf("the runtime does not answer: %w", cause)
	}
	i.memory.image = "" // it may be the image that went
	return s.startFailed(ctx, i, want, cause)
}

func (s *Service) startFailed(ctx context.Context, i *instance, want *nodev1.DesiredInstance, cause error) (time.Duration, error) {
	now := time.Now()
	who := identityOf(want, nil)
	m := &i.memory
	who.attempt = m.next.attempt
	next, more := nextStart(who.attempt, m.next.failures, now, now, want.GetMaxAttempts())
	s.deps.Log.WarnContext(ctx, "an instance could not be started", "instance", i.id, "attempt", who.attempt, "error", cause)
	if err := s.record(ctx, who, attemptKey(who), &deploymentv1.ContainerStartFailed{
		ReleaseId: who.release, InstanceId: who.instance, NodeId: s.cfg.NodeID,
		Reason: redact(cause.Error(), 0, secretsOf(m.env)), Attempt: uint32(who.attempt),
	}); err != nil {
		return 0, err
	}
	m.next, m.gaveUp, m.last = next, !more, nil
	if !more {
		return 0, nil
	}
	return max(time.Until(next.at), time.Millisecond), nil
}

func (s *Service) spec(want *nodev1.DesiredInstance, m *memory, env map[string]string) runtime.Spec {
	return runtime.Spec{
		Name: want.GetContainerName(), Image: m.image, Labels: s.labels(want, m.next), Env: env,
		MemoryBytes:   int64(want.GetMemoryLimitMb()) << 20,
		CPUMillicores: int64(want.GetCpuLimitMillicores()),
		Port:          int(want.GetPort()), LogMaxBytes: s.cfg.LogMaxBytes,
	}
}

func (s *Service) labels(want *nodev1.DesiredInstance, next start) map[string]string {
	return map[string]string{
		runtime.LabelOrg: want.GetOrgId(), runtime.LabelDeployment: want.GetDeploymentId(),
		runtime.LabelRelease: want.GetReleaseId(), runtime.LabelInstance: want.GetInstanceId(),
		runtime.LabelAttempt: strconv.Itoa(next.attempt), runtime.LabelFailures: strconv.Itoa(next.failures),
	}
}

// fact makes the event with an id from what was seen, so that seeing it again, also
// by a later process, makes the same.
func (s *Service) fact(ctx context.Context, who identity, key string, payload proto.Message) eventstore.Event {
	e := eventstore.Event{
		Aggregate: subjects.Of(who.org, subjects.Deployment, who.deployment),
		Payload:   payload,
		Time:      time.Now(),
		Source:    "node-agent/" + s.cfg.NodeID,
		TraceParent: func() string {
			if parent := observe.TraceParent(ctx); parent != "" {
				return parent
			}
			return who.traceParent
		}(),
	}
	e.ID = who.instance + "/" + e.Type()
	if key != "" {
		e.ID += "/" + key
	}
	return e
}

// attemptKey tells one start of an instance from every other. A start that made no
// container has none to name.
func attemptKey(who identity) string {
	return who.container + "/" + strconv.Itoa(who.attempt)
}

func enter(ctx context.Context, slots chan struct{}) (leave func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pinned is the reference to exactly that image once its digest is known.
func pinned(image, digest string) string {
	if digest == "" {
		return image
	}
	return runtime.Repository(image) + "@" + digest
}

// reason is what the app's owner reads: a failed pull's own sentence.
func reason(err error) string {
	var pull *runtime.PullError
	if errors.As(err, &pull) {
		return pull.Error()
	}
	return err.Error()
}

func timestamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
