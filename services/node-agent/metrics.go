package nodeagent

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	facts   *prometheus.CounterVec
	starts  *prometheus.HistogramVec
	pulls   *prometheus.CounterVec
	errors  prometheus.Counter
	pruned  prometheus.Counter
	managed prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		facts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_node_facts_total", Help: "Facts recorded, by event type.",
		}, []string{"type"}),
		starts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "slipway_node_container_start_seconds", Help: "Time to make and start a container, by result.",
			Buckets: []float64{.025, .05, .1, .2, .4, .8, 1.6, 3.2, 6.4},
		}, []string{"result"}),
		pulls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_node_pulls_total", Help: "Image pulls, by result: fetched, cached, failed.",
		}, []string{"result"}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_node_reconcile_errors_total", Help: "Looks at an instance that ended in an error and are repeated.",
		}),
		pruned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_node_images_pruned_total", Help: "Images removed because nothing needed them.",
		}),
		managed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "slipway_node_instances", Help: "Instances that the node knows of.",
		}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(
		r.Register(m.facts), r.Register(m.starts), r.Register(m.pulls),
		r.Register(m.errors), r.Register(m.pruned), r.Register(m.managed),
	)
}
