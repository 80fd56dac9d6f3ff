package access

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// mostApps is how many apps have series of their own; all others are "other" together.
const mostApps = 2000

var (
	descRequests = prometheus.NewDesc("slipway_edge_app_requests_total",
		"Requests by deployment and class of status.", []string{"deployment", "class"}, nil)
	descDurations = prometheus.NewDesc("slipway_edge_app_request_duration_seconds",
		"Time to the last byte of the answer, by deployment; upgraded connections left out.", []string{"deployment"}, nil)
	descDropped = prometheus.NewDesc("slipway_edge_access_log_dropped_total",
		"Entries that access logs lack: the app was asked too often (rate), the queue was full (queue), NATS took none (nats).", []string{"reason"}, nil)
)

// Describe implements prometheus.Collector.
func (r *Recorder) Describe(to chan<- *prometheus.Desc) {
	to <- descRequests
	to <- descDurations
	to <- descDropped
}

// Collect implements prometheus.Collector. Apps that are not routed any more have gone.
func (r *Recorder) Collect(to chan<- prometheus.Metric) {
	var other tally
	apps := 0
	r.apps.Range(func(_, v any) bool {
		app := v.(*App)
		one := app.tally()
		if apps++; apps > mostApps {
			other.add(one)
			return true
		}
		one.collect(app.deployment, to)
		return true
	})
	if apps > mostApps {
		other.collect("other", to)
	}
	for reason, n := range map[string]uint64{"rate": r.tooMany.Load(), "queue": r.queueFull.Load(), "nats": r.unsent.Load()} {
		to <- prometheus.MustNewConstMetric(descDropped, prometheus.CounterValue, float64(n), reason)
	}
}

// tally is what an app's series are made of.
type tally struct {
	class    [5]uint64
	inBucket [len(buckets) + 1]uint64
	seconds  float64
	timed    uint64
}

func (a *App) tally() tally {
	a.mu.Lock()
	defer a.mu.Unlock()
	return tally{class: a.ever.class, inBucket: a.inBucket, seconds: a.seconds, timed: a.timed}
}

func (t *tally) add(o tally) {
	for i, n := range o.class {
		t.class[i] += n
	}
	for i, n := range o.inBucket {
		t.inBucket[i] += n
	}
	t.seconds += o.seconds
	t.timed += o.timed
}

func (t *tally) collect(deployment string, to chan<- prometheus.Metric) {
	for i, n := range t.class {
		if n > 0 {
			to <- prometheus.MustNewConstMetric(descRequests, prometheus.CounterValue, float64(n), deployment, strconv.Itoa(i+1)+"xx")
		}
	}
	below, sum := make(map[float64]uint64, len(buckets)), uint64(0)
	for i, bound := range buckets {
		sum += t.inBucket[i]
		below[bound] = sum
	}
	to <- prometheus.MustNewConstHistogram(descDurations, t.timed, t.seconds, below, deployment)
}
