package health

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	source = "health"

	minInterval = 10 * time.Millisecond
	maxInterval = time.Hour
	maxTimeout  = time.Minute
)

// watched is one target under watch: its goroutine owns the tracker.
type watched struct {
	cancel  context.CancelFunc
	current *healthv1.Target
	// updates holds at most the newest value: only the last one matters.
	updates chan *healthv1.Target
	// doubts asks for a probe at once; one that waits is enough.
	doubts chan struct{}
}

// set starts to watch a target, or tells its watcher the newer value.
func (s *Service) set(ctx context.Context, key string, target *healthv1.Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.watching[key]; ok {
		if newTracker(known.current).sameAttempt(target) {
			known.current = target
			select {
			case <-known.updates:
			default:
			}
			known.updates <- target
			return
		}
		known.cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watched{cancel: cancel, current: target, updates: make(chan *healthv1.Target, 1), doubts: make(chan struct{}, 1)}
	s.watching[key] = w
	s.figures.watched.Set(float64(len(s.watching)))
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		s.watch(ctx, newTracker(target), w)
	}()
}

// unset stops watching a target.
func (s *Service) unset(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.watching[key]; ok {
		known.cancel()
		delete(s.watching, key)
		s.figures.watched.Set(float64(len(s.watching)))
	}
}

// watch probes one target until ctx ends.
func (s *Service) watch(ctx context.Context, t *tracker, w *watched) {
	timer := time.NewTimer(t.first(s.interval(t.target), s.jitter()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case target := <-w.updates:
			t.adopt(target)
			continue
		case <-w.doubts:
			if !t.doubt(time.Now()) {
				continue
			}
		case <-timer.C:
		}
		if !s.once(ctx, t) {
			return
		}
		timer.Reset(t.next(s.interval(t.target), s.jitter()))
	}
}

// once probes, publishes and records. It returns false when ctx has ended.
func (s *Service) once(ctx context.Context, t *tracker) bool {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	began := time.Now()
	ok, reason := s.probe(ctx, t.target, s.timeout(t.target))
	<-s.slots
	if ctx.Err() != nil {
		return false
	}
	now := time.Now()
	o := outcome{ok: ok, reason: reason, at: now, took: now.Sub(began)}
	s.figures.probed(o)
	if due, isChange := t.observe(o); isChange {
		s.change(ctx, t, due)
	}
	if t.report(o) {
		s.report(ctx, t.target, o)
	}
	return ctx.Err() == nil
}

// change tells the log; should that fail, the next probe finds the change due again.
func (s *Service) change(ctx context.Context, t *tracker, due change) {
	ctx, span := s.startChange(ctx, t.target, due, t.since)
	defer span.End()
	sequence, err := s.record(ctx, t.target, due)
	if observe.Failed(span, err) != nil {
		s.log.WarnContext(ctx, "a change of health could not be recorded, it is tried again with the next probe",
			"deployment", t.target.GetDeploymentId(), "instance", t.target.GetInstanceId(), "healthy", due.healthy, "error", err)
		return
	}
	t.recorded(due, sequence)
	s.figures.changed(due)
	s.log.InfoContext(ctx, "an instance changed its health", "deployment", t.target.GetDeploymentId(),
		"instance", t.target.GetInstanceId(), "healthy", due.healthy, "reason", due.reason)
}

func (s *Service) record(ctx context.Context, target *healthv1.Target, c change) (uint64, error) {
	var payload proto.Message
	if c.healthy {
		payload = &deploymentv1.InstanceHealthy{
			ReleaseId: target.GetReleaseId(), InstanceId: target.GetInstanceId(), ContainerId: target.GetContainerId(),
			Attempt: target.GetAttempt(), CheckedAt: timestamppb.New(c.at),
		}
	} else {
		payload = &deploymentv1.InstanceUnhealthy{
			ReleaseId: target.GetReleaseId(), InstanceId: target.GetInstanceId(), ContainerId: target.GetContainerId(),
			Attempt: target.GetAttempt(), CheckedAt: timestamppb.New(c.at), Reason: c.reason,
		}
	}
	traceParent := observe.TraceParent(ctx)
	if traceParent == "" {
		traceParent = target.GetTraceParent()
	}
	sequence, err := s.recorder.Record(ctx, eventstore.Event{
		Aggregate: subjects.Of(target.GetOrgId(), subjects.Deployment, target.GetDeploymentId()),
		ID:        c.id, Payload: payload, Time: c.at, Source: source, TraceParent: traceParent,
	})
	if err != nil {
		return 0, fmt.Errorf("record that instance %s changed its health: %w", target.GetInstanceId(), err)
	}
	return sequence, nil
}

func (s *Service) report(ctx context.Context, target *healthv1.Target, o outcome) {
	data, err := proto.Marshal(&healthv1.ProbeResult{
		OrgId: target.GetOrgId(), DeploymentId: target.GetDeploymentId(), InstanceId: target.GetInstanceId(),
		Ok: o.ok, Reason: o.reason, CheckedAt: timestamppb.New(o.at), Took: durationpb.New(o.took),
	})
	if err == nil {
		err = s.publish(subjects.Probe(target.GetOrgId(), target.GetDeploymentId(), target.GetInstanceId()), data)
	}
	if err != nil {
		// The next probe says it again.
		s.log.DebugContext(ctx, "a probe's result could not be published", "instance", target.GetInstanceId(), "error", err)
	}
}

// interval and timeout are bounded here too: a value of the view that nobody checked
// must not have the prober spin, or keep a slot from the others.
func (s *Service) interval(target *healthv1.Target) time.Duration {
	if d := target.GetHealthCheck().GetInterval().AsDuration(); d > 0 {
		return min(max(d, minInterval), maxInterval)
	}
	return s.config.DefaultInterval
}

func (s *Service) timeout(target *healthv1.Target) time.Duration {
	if d := target.GetHealthCheck().GetTimeout().AsDuration(); d > 0 {
		return min(d, maxTimeout)
	}
	return s.config.DefaultTimeout
}
