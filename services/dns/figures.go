package dns

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// figures are what an operator watches of zones. They are the client's Watch.
type figures struct {
	zones, tunnels, compared prometheus.Gauge
	records                  *prometheus.GaugeVec
	calls, challenges        *prometheus.CounterVec
	waits, waited            prometheus.Counter
}

func newFigures(r prometheus.Registerer) (*figures, error) {
	f := &figures{
		zones:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "slipway_dns_zones", Help: "DNS zones that are held; 0 when there is no token."}),
		tunnels:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "slipway_dns_tunnels", Help: "Tunnels that shall be there."}),
		compared: prometheus.NewGauge(prometheus.GaugeOpts{Name: "slipway_dns_compared_timestamp_seconds", Help: "When all that is wanted was last compared with all that is there."}),
		records:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "slipway_dns_records", Help: "Records, by state: wanted, and of those applied or failed."}, []string{"state"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_dns_api_calls_total", Help: "Calls of the provider's API, by result: ok, gone, taken, refused, unauthorized, limited or unavailable.",
		}, []string{"result"}),
		challenges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_dns_challenges_total", Help: "Requests for the records of ACME challenges, by result: done, refused or failed.",
		}, []string{"result"}),
		waits:  prometheus.NewCounter(prometheus.CounterOpts{Name: "slipway_dns_rate_limit_waits_total", Help: "Calls that waited for their turn."}),
		waited: prometheus.NewCounter(prometheus.CounterOpts{Name: "slipway_dns_rate_limit_wait_seconds_total", Help: "How long calls waited for their turn."}),
	}
	for _, state := range []string{"wanted", "applied", "failed"} {
		f.records.WithLabelValues(state).Set(0)
	}
	if r == nil {
		return f, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{f.zones, f.tunnels, f.compared, f.records, f.calls, f.challenges, f.waits, f.waited} {
		errs = append(errs, r.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register the figures of DNS: %w", err)
	}
	return f, nil
}

// Called counts a call of the API.
func (f *figures) Called(result string) { f.calls.WithLabelValues(result).Inc() }

// Waited counts a wait for a call's turn.
func (f *figures) Waited(d time.Duration) {
	f.waits.Inc()
	f.waited.Add(d.Seconds())
}

func (f *figures) show(st standing) {
	f.zones.Set(float64(len(st.zones)))
	f.records.WithLabelValues("wanted").Set(float64(st.wanted))
	f.records.WithLabelValues("applied").Set(float64(st.applied))
	f.records.WithLabelValues("failed").Set(float64(st.failed))
	f.tunnels.Set(float64(st.tunnels))
	if !st.comparedAt.IsZero() {
		f.compared.Set(float64(st.comparedAt.Unix()))
	}
}
