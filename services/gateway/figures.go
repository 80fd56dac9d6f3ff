package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
)

// figures counts requests by what they asked for and how they ended.
type figures struct {
	requests *prometheus.HistogramVec
	polls    prometheus.Observer
	// pollPattern is the route of a status poll.
	pollPattern string
}

func newFigures(r prometheus.Registerer) (*figures, error) {
	f := &figures{requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "slipway_gateway_request_seconds",
		Help:    "How long requests took, by route and status.",
		Buckets: []float64{.0005, .001, .005, .01, .05, .1, .5, 1, 5, 30},
	}, []string{"route", "status"})}
	if r != nil {
		if err := r.Register(f.requests); err != nil {
			return nil, fmt.Errorf("register the gateway's figures: %w", err)
		}
	}
	f.pollPattern = pollPattern()
	f.polls = f.requests.WithLabelValues(f.pollPattern, strconv.Itoa(http.StatusOK))
	return f, nil
}

// pollPattern is the route label of a status poll, as the common way would have it.
func pollPattern() string {
	all, _ := routes(dialects()...)
	for _, rt := range all {
		if rt.rpc == deployv1.DeployService_GetDeploymentStatus_FullMethodName {
			return rt.pattern()
		}
	}
	return "other"
}

func (f *figures) polled(took time.Duration) { f.polls.Observe(took.Seconds()) }

// observe takes a route's pattern, never a path: clients must not make series.
func (f *figures) observe(pattern string, status int, took time.Duration) {
	if pattern == "" {
		pattern = "other"
	}
	f.requests.WithLabelValues(pattern, strconv.Itoa(status)).Observe(took.Seconds())
}
