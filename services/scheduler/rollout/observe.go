package rollout

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// Figures take note of what the reactor did. They hear of it when it is done, not
// when the log is read, so that a restart counts nothing twice.
type Figures interface {
	// Decided counts a command of the reactor's own and how it ended.
	Decided(command string, err error)
	// RolledOut says how long a release took from being asked for to its end.
	RolledOut(first, running bool, took time.Duration)
	// Moved says how many instances were given another node and why: one of the Moved
	// constants.
	Moved(cause string, instances int)
}

// Why instances were given another node.
const (
	MovedNodeLost   = "node_lost"
	MovedDrain      = "drain"
	MovedNotHealthy = "not_healthy"
)

// NoFigures keeps none.
type NoFigures struct{}

// Decided implements Figures.
func (NoFigures) Decided(string, error) {}

// RolledOut implements Figures.
func (NoFigures) RolledOut(bool, bool, time.Duration) {}

// Moved implements Figures.
func (NoFigures) Moved(string, int) {}

// CommandName is a command's type without its package: Schedule, MarkRunning.
func CommandName(c deployment.Command) string {
	name := fmt.Sprintf("%T", c)
	return name[strings.LastIndexByte(name, '.')+1:]
}

// startStep begins a step's span, in the trace of the request that the deployment
// is still busy with.
func (r *Reactor) startStep(ctx context.Context, s deployment.State, c deployment.Command) (context.Context, trace.Span) {
	ctx, span := observe.Continue(ctx, r.Tracer, s.TraceParent, "decide", trace.SpanKindInternal)
	if !span.IsRecording() {
		return ctx, span
	}
	span.SetName("decide " + CommandName(c))
	span.SetAttributes(attribute.String("slipway.org", s.Org), attribute.String("slipway.deployment", s.ID))
	switch c := c.(type) {
	case deployment.Schedule:
		for _, p := range c.Placements {
			span.SetAttributes(attribute.String("slipway.node", p.NodeId), attribute.String("slipway.instance", p.InstanceId))
		}
	case deployment.Reschedule:
		span.SetAttributes(attribute.Int("slipway.instances", len(c.Placements)), attribute.String("slipway.reason", c.Reason))
	case deployment.Defer:
		span.SetAttributes(attribute.String("slipway.reason", c.Reason))
	case deployment.FailRelease:
		span.SetAttributes(attribute.String("slipway.failure", c.Failure.Code), attribute.String("slipway.reason", c.Failure.Reason))
	}
	return ctx, span
}

// ended takes note of what the command brought to its end: a release, or the stay of
// instances on their nodes.
func (r *Reactor) ended(s deployment.State, c deployment.Command, now time.Time) {
	if moved, ok := c.(deployment.Reschedule); ok && len(moved.Placements) > 0 {
		cause := MovedDrain
		switch {
		case moved.NodeLost:
			cause = MovedNodeLost
		case moved.NotHealthy:
			cause = MovedNotHealthy
		}
		r.Figures.Moved(cause, len(moved.Placements))
	}
	if s.Next == nil {
		return
	}
	switch c.(type) {
	case deployment.MarkRunning:
		r.Figures.RolledOut(s.Live == nil, true, now.Sub(s.Next.RequestedAt))
	case deployment.FailRelease:
		r.Figures.RolledOut(s.Live == nil, false, now.Sub(s.Next.RequestedAt))
	}
}
