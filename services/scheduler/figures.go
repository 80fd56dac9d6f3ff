package scheduler

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-paas/slipway/services/scheduler/node"
)

// figures are what the people who run the platform watch of nodes and placement.
type figures struct {
	nodes  nodeFigure
	moves  *prometheus.CounterVec
	queued prometheus.GaugeFunc
}

func newFigures(s *Service) figures {
	return figures{
		nodes: nodeFigure{service: s, desc: prometheus.NewDesc("slipway_scheduler_nodes",
			"Nodes that ever joined, by status: ready, cordoned, draining, lost.", []string{"status"}, nil)},
		moves: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "slipway_scheduler_instances_moved_total",
			Help: "Instances given another node, by cause: node_lost, drain, not_healthy."}, []string{"cause"}),
		queued: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "slipway_scheduler_waiting_for_room",
			Help: "Deployments with an instance that fits on no node."}, func() float64 { return float64(s.reactor.Waiting()) }),
	}
}

func (f figures) moved(cause string, instances int) {
	f.moves.WithLabelValues(cause).Add(float64(instances))
}

func (f figures) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{f.nodes, f.moves, f.queued} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("scheduler: registering a figure: %w", err)
		}
	}
	return nil
}

// nodeFigure counts the nodes of each status when it is asked.
type nodeFigure struct {
	service *Service
	desc    *prometheus.Desc
}

func (f nodeFigure) Describe(out chan<- *prometheus.Desc) { out <- f.desc }

func (f nodeFigure) Collect(out chan<- prometheus.Metric) {
	count := map[node.Status]int{node.Ready: 0, node.Cordoned: 0, node.Draining: 0, node.Lost: 0}
	for _, r := range f.service.roster.List() {
		count[r.State.Status()]++
	}
	for status, n := range count {
		out <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, float64(n), string(status))
	}
}
