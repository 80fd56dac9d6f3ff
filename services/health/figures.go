package health

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	"github.com/slipway-paas/slipway/libs/observe"
)

// figures are what an operator watches of probes.
type figures struct {
	ok, failed         prometheus.Observer
	healthy, unhealthy prometheus.Counter
	watched            prometheus.Gauge
	hints              prometheus.Counter
}

func newFigures(r prometheus.Registerer) (*figures, error) {
	probes := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "slipway_health_probe_seconds",
		Help:    "How long probes of instances took, by result: ok or failed.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	}, []string{"result"})
	changes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "slipway_health_changes_total", Help: "Instances that became healthy or unhealthy, as recorded.",
	}, []string{"to"})
	watched := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "slipway_health_instances", Help: "Instances under watch.",
	})
	hints := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "slipway_health_hints_total", Help: "Instances under watch that an edge said fail its requests.",
	})
	f := &figures{
		hints: hints,
		ok:    probes.WithLabelValues("ok"), failed: probes.WithLabelValues("failed"),
		healthy: changes.WithLabelValues("healthy"), unhealthy: changes.WithLabelValues("unhealthy"), watched: watched,
	}
	if r == nil {
		return f, nil
	}
	if err := errors.Join(r.Register(probes), r.Register(changes), r.Register(watched), r.Register(hints)); err != nil {
		return nil, fmt.Errorf("register the figures of health: %w", err)
	}
	return f, nil
}

func (f *figures) probed(o outcome) {
	if o.ok {
		f.ok.Observe(o.took.Seconds())
		return
	}
	f.failed.Observe(o.took.Seconds())
}

func (f *figures) changed(c change) {
	if c.healthy {
		f.healthy.Inc()
		return
	}
	f.unhealthy.Inc()
}

// startChange begins the span of a change, in the trace of the request that the
// instance runs for. It covers the wait since the first probe.
func (s *Service) startChange(ctx context.Context, target *healthv1.Target, c change, since time.Time) (context.Context, trace.Span) {
	ctx = observe.WithTraceParent(ctx, target.GetTraceParent())
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, trace.SpanFromContext(context.Background())
	}
	name := "instance became unhealthy"
	if c.healthy {
		name = "instance became healthy"
	}
	return s.tracer.Start(ctx, name, trace.WithTimestamp(since), trace.WithAttributes(
		attribute.String("slipway.deployment", target.GetDeploymentId()), attribute.String("slipway.instance", target.GetInstanceId()),
		attribute.Int64("slipway.attempt", int64(target.GetAttempt())), attribute.String("slipway.reason", c.reason)))
}
