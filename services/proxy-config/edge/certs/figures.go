package certs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// figures are counted since the process began.
type figures struct {
	results *prometheus.CounterVec
	failed  prometheus.Counter
}

func newFigures() figures {
	results := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "slipway_edge_certificates_total",
		Help: "Certificates that this edge tried to get, by how it ended.",
	}, []string{"result"})
	return figures{results: results, failed: results.WithLabelValues("failed")}
}

func (f figures) had(renewal bool) {
	if renewal {
		f.results.WithLabelValues("renewed").Inc()
		return
	}
	f.results.WithLabelValues("obtained").Inc()
}

// Describe implements prometheus.Collector.
func (k *Keeper) Describe(ch chan<- *prometheus.Desc) {
	k.count.results.Describe(ch)
	ch <- heldDesc
	ch <- soonestDesc
}

// Collect implements prometheus.Collector.
func (k *Keeper) Collect(ch chan<- prometheus.Metric) {
	k.count.results.Collect(ch)
	var held, pending, failing int
	var soonest time.Time
	k.mu.Lock()
	for _, st := range k.states {
		switch {
		case st.held:
			held++
			if soonest.IsZero() || st.expires.Before(soonest) {
				soonest = st.expires
			}
		case st.err != nil:
			failing++
		default:
			pending++
		}
	}
	k.mu.Unlock()
	for name, count := range map[string]int{"held": held, "pending": pending, "failing": failing} {
		ch <- prometheus.MustNewConstMetric(heldDesc, prometheus.GaugeValue, float64(count), name)
	}
	if !soonest.IsZero() {
		ch <- prometheus.MustNewConstMetric(soonestDesc, prometheus.GaugeValue, float64(soonest.Unix()))
	}
}

var (
	heldDesc = prometheus.NewDesc("slipway_edge_certificates",
		"Certificates that this edge holds, is getting, or could not get.", []string{"state"}, nil)
	soonestDesc = prometheus.NewDesc("slipway_edge_certificate_soonest_expiry_seconds",
		"When the first of the certificates held ends, in seconds since 1970.", nil, nil)
)
