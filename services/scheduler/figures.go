package scheduler

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/fleet"
	"github.com/slipway-paas/slipway/services/scheduler/node"
	"github.com/slipway-paas/slipway/services/scheduler/rollout"
	"github.com/slipway-paas/slipway/services/scheduler/roster"
)

// figures are what an operator watches of deployments.
type figures struct {
	commands *prometheus.CounterVec
	rollouts *prometheus.HistogramVec
	moves    *prometheus.CounterVec
}

// newFigures registers them; waiting is how many deployments wait for room.
func newFigures(r prometheus.Registerer, all *fleet.Fleet, nodes *roster.Roster, waiting func() int) (*figures, error) {
	f := &figures{
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_scheduler_commands_total",
			Help: "Commands by type and outcome: ok, refused (by the rules), conflict, unavailable, failed.",
		}, []string{"command", "outcome"}),
		rollouts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "slipway_scheduler_rollout_seconds",
			Help:    "From asking for a release to running or failed; kind is first or next, when another one serves meanwhile.",
			Buckets: []float64{.05, .1, .2, .4, .8, 1.6, 3.2, 6.4, 15, 30, 60, 120, 300, 600},
		}, []string{"kind", "result"}),
		moves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_scheduler_instances_moved_total",
			Help: "Instances given another node, by cause: node_lost, drain, not_healthy.",
		}, []string{"cause"}),
	}
	queued := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "slipway_scheduler_waiting_for_room",
		Help: "Deployments with an instance that fits on no node.",
	}, func() float64 { return float64(waiting()) })
	// Series that are there from the start, so that their growth can be seen.
	for _, kind := range []string{"first", "next"} {
		for _, result := range []string{"running", "failed"} {
			f.rollouts.WithLabelValues(kind, result)
		}
	}
	for _, command := range []string{"Create", "Restart", "Stop", "Destroy"} {
		f.commands.WithLabelValues(command, "ok")
	}
	for _, cause := range []string{rollout.MovedNodeLost, rollout.MovedDrain, rollout.MovedNotHealthy} {
		f.moves.WithLabelValues(cause)
	}
	if r == nil {
		return f, nil
	}
	for _, c := range []prometheus.Collector{f.commands, f.rollouts, f.moves, queued, newCensus(all), newNodeCensus(nodes)} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering the scheduler's figures: %w", err)
		}
	}
	return f, nil
}

// Decided implements rollout.Figures.
func (f *figures) Decided(command string, err error) {
	f.commands.WithLabelValues(command, outcomeOf(err)).Inc()
}

// RolledOut implements rollout.Figures.
func (f *figures) RolledOut(first, running bool, took time.Duration) {
	kind, result := "next", "failed"
	if first {
		kind = "first"
	}
	if running {
		result = "running"
	}
	f.rollouts.WithLabelValues(kind, result).Observe(took.Seconds())
}

// Moved implements rollout.Figures.
func (f *figures) Moved(cause string, instances int) {
	f.moves.WithLabelValues(cause).Add(float64(instances))
}

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, eventstore.ErrConflict):
		return "conflict"
	case errors.Is(err, eventstore.ErrUnavailable):
		return "unavailable"
	}
	switch problem.From(err).Code {
	case problem.CodeConflict:
		return "conflict"
	case problem.CodeUnavailable:
		return "unavailable"
	case problem.CodeInternal:
		return "failed"
	}
	return "refused"
}

// census counts deployments by status when it is asked.
type census struct {
	fleet *fleet.Fleet
	desc  *prometheus.Desc
}

func newCensus(all *fleet.Fleet) census {
	return census{fleet: all, desc: prometheus.NewDesc("slipway_scheduler_deployments", "Deployments by status.", []string{"status"}, nil)}
}

// Describe implements prometheus.Collector.
func (c census) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

// Collect implements prometheus.Collector.
func (c census) Collect(out chan<- prometheus.Metric) {
	count := map[deployment.Status]int{
		deployment.Pending: 0, deployment.Deploying: 0, deployment.Running: 0, deployment.Stopped: 0, deployment.Destroyed: 0,
	}
	c.fleet.Each(func(s deployment.State) {
		if s.Exists() {
			count[s.Status]++
		}
	})
	for status, n := range count {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), string(status))
	}
}

// nodeCensus counts the nodes that ever joined by status when it is asked.
type nodeCensus struct {
	nodes *roster.Roster
	desc  *prometheus.Desc
}

func newNodeCensus(nodes *roster.Roster) nodeCensus {
	return nodeCensus{nodes: nodes, desc: prometheus.NewDesc("slipway_scheduler_nodes",
		"Nodes that ever joined, by status: ready, cordoned, draining, lost.", []string{"status"}, nil)}
}

// Describe implements prometheus.Collector.
func (c nodeCensus) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

// Collect implements prometheus.Collector.
func (c nodeCensus) Collect(out chan<- prometheus.Metric) {
	count := map[node.Status]int{node.Ready: 0, node.Cordoned: 0, node.Draining: 0, node.Lost: 0}
	for _, r := range c.nodes.List() {
		count[r.State.Status()]++
	}
	for status, n := range count {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), string(status))
	}
}
