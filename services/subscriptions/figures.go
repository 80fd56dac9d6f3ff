package subscriptions

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// figures are what an operator watches of clients outside.
type figures struct {
	connections prometheus.Gauge
	refused     *prometheus.CounterVec
	ended       *prometheus.CounterVec
}

func newFigures(r prometheus.Registerer) (*figures, error) {
	f := &figures{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "slipway_subscriptions_connections", Help: "NATS clients of organizations that are connected.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_subscriptions_refused_total", Help: "NATS clients that were not let in, by reason.",
		}, []string{"reason"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_subscriptions_ended_total", Help: "NATS clients that were cut off, by reason: ended with their credential, or asks_too_much.",
		}, []string{"reason"}),
	}
	if r == nil {
		return f, nil
	}
	if err := errors.Join(r.Register(f.connections), r.Register(f.refused), r.Register(f.ended)); err != nil {
		return nil, fmt.Errorf("register the figures of subscriptions: %w", err)
	}
	return f, nil
}
