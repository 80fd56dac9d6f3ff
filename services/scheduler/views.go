package scheduler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// views writes VIEW_desired and VIEW_instances: only what differs from what is
// there, and only what is newer.
type views struct {
	desired *published[*nodev1.DesiredInstance]
	targets *published[*healthv1.Target]
}

func (v *views) Publish(ctx context.Context, s deployment.State) error {
	// Targets first: health is what a rollout waits for.
	if err := v.targets.publish(ctx, s.ID, s.Sequence, deployment.Targets(s)); err != nil {
		return err
	}
	return v.desired.publish(ctx, s.ID, s.Sequence, deployment.Desired(s))
}

// sequenced is a value that names the event it follows from.
type sequenced interface {
	proto.Message
	GetDeploymentId() string
	GetSequence() uint64
}

// Bucket is where values are published for other machines; *view.View is one.
type Bucket[T proto.Message] interface {
	Snapshot(ctx context.Context, filter string) ([]view.Entry[T], error)
	Put(ctx context.Context, key string, value T) (revision uint64, err error)
	Delete(ctx context.Context, key string) (revision uint64, err error)
}

// published remembers what one bucket holds, by deployment and key. Many deployments
// are published at once, each by one at a time.
type published[T sequenced] struct {
	name   string
	tracer trace.Tracer
	bucket Bucket[T]
	stamp  func(T, uint64)
	mu     sync.Mutex
	held   map[string]map[string]T // each inner map belongs to who publishes the deployment
}

// load reads what earlier runs have written.
func (p *published[T]) load(ctx context.Context) error {
	entries, err := p.bucket.Snapshot(ctx, ">")
	if err != nil {
		return fmt.Errorf("reading what is published: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = map[string]map[string]T{}
	for _, e := range entries {
		p.of(e.Value.GetDeploymentId())[e.Key] = e.Value
	}
	return nil
}

func (p *published[T]) of(deploymentID string) map[string]T {
	m, ok := p.held[deploymentID]
	if !ok {
		m = map[string]T{}
		p.held[deploymentID] = m
	}
	return m
}

// publish makes the bucket hold what is wanted for one deployment, and no more.
func (p *published[T]) publish(ctx context.Context, deploymentID string, sequence uint64, wanted map[string]T) error {
	p.mu.Lock()
	held := p.of(deploymentID)
	p.mu.Unlock()
	// In a fixed order: what is left undone by an error is always the same.
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		value := wanted[key]
		if old, ok := held[key]; ok {
			p.stamp(value, old.GetSequence())
			if proto.Equal(old, value) {
				continue
			}
		}
		p.stamp(value, sequence)
		if err := p.change(ctx, "put", key, func(ctx context.Context) error {
			_, err := p.bucket.Put(ctx, key, value)
			return err
		}); err != nil {
			// It may be there all the same: it is to be written again, or deleted.
			var unknown T
			held[key] = unknown
			return fmt.Errorf("writing %s: %w", key, err)
		}
		held[key] = value
	}
	for _, key := range slices.Sorted(maps.Keys(held)) {
		if _, ok := wanted[key]; ok {
			continue
		}
		if err := p.change(ctx, "delete", key, func(ctx context.Context) error {
			_, err := p.bucket.Delete(ctx, key)
			return err
		}); err != nil {
			return fmt.Errorf("deleting %s: %w", key, err)
		}
		delete(held, key)
	}
	if len(held) == 0 {
		p.mu.Lock()
		delete(p.held, deploymentID)
		p.mu.Unlock()
	}
	return nil
}

// change writes to the bucket, in a span of the trace that ctx is in.
func (p *published[T]) change(ctx context.Context, operation, key string, write func(context.Context) error) error {
	ctx, span := observe.Continue(ctx, p.tracer, "", "write view", trace.SpanKindProducer)
	defer span.End()
	if span.IsRecording() {
		span.SetName(operation + " " + p.name)
		span.SetAttributes(attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", p.name),
			attribute.String("slipway.view.key", key))
	}
	return observe.Failed(span, write(ctx))
}

// deployments are the ids that something is published for.
func (v *views) deployments() []string {
	ids := map[string]bool{}
	for _, m := range []interface{ each(func(string)) }{v.desired, v.targets} {
		m.each(func(id string) { ids[id] = true })
	}
	out := make([]string, 0, len(ids))
	for id := range ids {
		out = append(out, strings.Clone(id))
	}
	return out
}

func (p *published[T]) each(visit func(string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.held {
		visit(id)
	}
}
