package webhooks

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-paas/slipway/services/webhooks/delivery"
	"github.com/slipway-paas/slipway/services/webhooks/queue"
)

// figures are what an operator watches of deliveries.
type figures struct {
	deliveries *prometheus.CounterVec
	retries    prometheus.Counter
}

func newFigures(r prometheus.Registerer, q *queue.Queue, now func() time.Time) (*figures, error) {
	f := &figures{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_webhooks_deliveries_total", Help: "Deliveries that have ended, by outcome: delivered, failed (given up).",
		}, []string{"outcome"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_webhooks_retries_total", Help: "Attempts after the first of a delivery.",
		}),
	}
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "slipway_webhooks_waiting", Help: "Deliveries that have not ended.",
	}, func() float64 {
		count, _ := q.Waiting()
		return float64(count)
	})
	oldest := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "slipway_webhooks_oldest_waiting_seconds", Help: "Age of the oldest delivery that has not ended; 0 for none.",
	}, func() float64 {
		count, since := q.Waiting()
		if count == 0 {
			return 0
		}
		return max(0, now().Sub(since).Seconds())
	})
	// Series that are there from the start, so that their growth can be seen.
	for _, outcome := range []string{delivery.Delivered, delivery.Failed} {
		f.deliveries.WithLabelValues(outcome)
	}
	if r == nil {
		return f, nil
	}
	for _, c := range []prometheus.Collector{f.deliveries, f.retries, waiting, oldest} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register the figures of webhooks: %w", err)
		}
	}
	return f, nil
}
