package proxyconfig

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// figures are what an operator watches of routes.
type figures struct {
	writes      prometheus.Counter
	facts       prometheus.Counter
	failures    prometheus.Counter
	unconfirmed prometheus.Gauge
	living      prometheus.GaugeFunc
	revision    prometheus.GaugeFunc
}

func newFigures(e *edges) figures {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "slipway_proxyconfig_" + name, Help: help})
	}
	return figures{
		writes:   counter("route_writes_total", "Routes written or deleted."),
		facts:    counter("facts_total", "RouteBound and RouteRemoved events recorded."),
		failures: counter("failures_total", "Attempts to bring routes up to date that failed."),
		unconfirmed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "slipway_proxyconfig_unconfirmed", Help: "Deployments whose routes not every living edge serves yet."}),
		living: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "slipway_proxyconfig_edges", Help: "Edges that live; 0 means that nothing can go live."},
			func() float64 { _, n := e.applied(); return float64(n) }),
		revision: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "slipway_proxyconfig_applied_revision", Help: "Revision of the routes that every living edge serves at least."},
			func() float64 { revision, _ := e.applied(); return float64(revision) }),
	}
}

func (f figures) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{f.writes, f.facts, f.failures, f.unconfirmed, f.living, f.revision} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("proxy-config: registering a figure: %w", err)
		}
	}
	return nil
}
