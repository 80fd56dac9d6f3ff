package domains

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-paas/slipway/services/domains/directory"
	"github.com/slipway-paas/slipway/services/domains/domain"
	"github.com/slipway-paas/slipway/services/domains/proof"
)

// figures are what an operator watches of domains.
type figures struct {
	looks    *prometheus.CounterVec
	failures prometheus.Counter
}

func newFigures(r prometheus.Registerer, known *directory.Directory) (figures, error) {
	f := figures{
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_domains_looks_total", Help: "Looks at the DNS of domains, by what was found: good, or why not."}, []string{"found"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_domains_failures_total", Help: "Things that could not be written down or done, and are tried again."}),
	}
	all := []prometheus.Collector{f.looks, f.failures}
	for _, status := range []domain.Status{domain.Pending, domain.Verified, domain.Active, domain.Failed} {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "slipway_domains", Help: "Custom domains by their status.", ConstLabels: prometheus.Labels{"status": string(status)}},
			func() float64 { return float64(known.Count(status)) }))
	}
	if r == nil {
		return f, nil
	}
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return f, fmt.Errorf("domains: registering a figure: %w", err)
		}
	}
	return f, nil
}

func (f figures) looked(v proof.Verdict) {
	found := v.Code
	if v.Method != "" {
		found = "good"
	}
	f.looks.WithLabelValues(found).Inc()
}
