package scheduler

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/services/scheduler/request"
)

// leastNodeLoss is more than twice what lies between two heartbeats.
const leastNodeLoss = 5 * time.Second

// mostInstances keeps one app's events and views small.
const mostInstances = 100

// Config is what the scheduler is told at start.
type Config struct {
	// BaseDomain is where subdomains live, e.g. apps.localhost.
	BaseDomain string `koanf:"base-domain" usage:"domain that apps live under"`
	// AllowedRegistries are the prefixes that image references must start with.
	AllowedRegistries []string `koanf:"allowed-registries" usage:"prefixes that image references must start with"`
	// ReservedSubdomains nobody may take.
	ReservedSubdomains []string `koanf:"reserved-subdomains" usage:"subdomains that nobody may take"`
	// OwnHosts nobody may bring as a domain, the public API's for one.
	OwnHosts []string `koanf:"own-hosts" usage:"hosts that the platform itself answers at, which nobody may bring as a custom domain"`
	// NodeLossAfter is the silence after which a node's instances are placed elsewhere.
	NodeLossAfter time.Duration `koanf:"node-loss-after" usage:"silence after which a node's instances are placed on others"`
	// MaxInstances bounds how many instances an app may be scaled to.
	MaxInstances int     `koanf:"max-instances" usage:"how many instances an app may have at most"`
	Rollout      Rollout `koanf:"rollout"`
}

// Rollout bounds each part of a rollout; it is written into each release, so a
// change holds for releases made after it.
type Rollout struct {
	PlacementTimeout time.Duration `koanf:"placement-timeout" usage:"how long a deployment may wait for a node with room"`
	StartTimeout     time.Duration `koanf:"start-timeout" usage:"how long pulling and starting may take"`
	HealthyTimeout   time.Duration `koanf:"healthy-timeout" usage:"how long a started container may take to become healthy"`
	StopTimeout      time.Duration `koanf:"stop-timeout" usage:"how long stopping or destroying may take"`
	Drain            time.Duration `koanf:"drain" usage:"how long a replaced instance finishes its requests before SIGTERM"`
	Grace            time.Duration `koanf:"grace" usage:"from SIGTERM to SIGKILL"`
	ProbePath        string        `koanf:"probe-path" usage:"path of the health check; a status below 500 is healthy"`
	ProbeInterval    time.Duration `koanf:"check-interval" usage:"between health checks of a healthy instance"`
	ProbeTimeout     time.Duration `koanf:"check-timeout" usage:"how long a health check may take"`
	UnhealthyAfter   int           `koanf:"unhealthy-after" usage:"failed health checks in a row that make an instance unhealthy"`
}

// DefaultConfig is what holds where nothing else is said.
func DefaultConfig() Config {
	return Config{
		BaseDomain:         "apps.localhost",
		AllowedRegistries:  []string{"harbor.buddo.xyz:4443/", "docker.io/library/", "ghcr.io/"},
		ReservedSubdomains: []string{"www", "api", "admin", "app", "apps", "auth", "billing", "dashboard", "docs", "mail", "ns1", "ns2", "registry", "slipway", "status", "support"},
		NodeLossAfter:      20 * time.Second,
		MaxInstances:       10,
		Rollout: Rollout{
			PlacementTimeout: 24 * time.Hour, StartTimeout: 5 * time.Minute, HealthyTimeout: time.Minute,
			StopTimeout: time.Minute, Drain: 5 * time.Second, Grace: 10 * time.Second,
			ProbePath: "/", ProbeInterval: 10 * time.Second, ProbeTimeout: 5 * time.Second, UnhealthyAfter: 3,
		},
	}
}

// Validate says everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.BaseDomain == "" {
		errs = append(errs, errors.New("base-domain is empty: name the domain that apps live under, e.g. apps.localhost"))
	}
	if len(c.AllowedRegistries) == 0 {
		errs = append(errs, errors.New("allowed registries are empty: no image could be deployed"))
	}
	if c.NodeLossAfter < leastNodeLoss {
		errs = append(errs, fmt.Errorf("node-loss-after is %s: below %s a late heartbeat would count as a lost node", c.NodeLossAfter, leastNodeLoss))
	}
	if c.MaxInstances < 1 || c.MaxInstances > mostInstances {
		errs = append(errs, fmt.Errorf("max-instances is %d: it must be 1 to %d", c.MaxInstances, mostInstances))
	}
	r := c.Rollout
	for name, d := range map[string]time.Duration{"placement timeout": r.PlacementTimeout, "start timeout": r.StartTimeout, "healthy timeout": r.HealthyTimeout,
		"stop timeout": r.StopTimeout, "probe interval": r.ProbeInterval, "probe timeout": r.ProbeTimeout, "grace": r.Grace} {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("the rollout's %s is %s: it must be above zero", name, d))
		}
	}
	if r.Drain < 0 {
		errs = append(errs, fmt.Errorf("the rollout's drain is %s: it must not be negative", r.Drain))
	}
	if r.StopTimeout <= r.Grace {
		errs = append(errs, fmt.Errorf("the rollout's stop timeout %s must be longer than its grace %s", r.StopTimeout, r.Grace))
	}
	if u, err := url.ParseRequestURI(r.ProbePath); err != nil || !strings.HasPrefix(r.ProbePath, "/") || u.Host != "" || strings.Contains(r.ProbePath, "#") {
		errs = append(errs, fmt.Errorf("the rollout's probe path %q is none: it must begin with /, e.g. / or /healthz", r.ProbePath))
	}
	if r.UnhealthyAfter < 1 {
		errs = append(errs, fmt.Errorf("unhealthy-after is %d: it must be at least 1", r.UnhealthyAfter))
	}
	return errors.Join(errs...)
}

func (c Config) rules() request.Rules {
	return request.Rules{Registries: c.AllowedRegistries, BaseDomain: c.BaseDomain, Reserved: c.ReservedSubdomains, OwnHosts: c.OwnHosts}
}

func (c Config) healthCheck() *deploymentv1.HealthCheck {
	return &deploymentv1.HealthCheck{Path: c.Rollout.ProbePath, Interval: durationpb.New(c.Rollout.ProbeInterval),
		Timeout: durationpb.New(c.Rollout.ProbeTimeout), UnhealthyAfter: uint32(c.Rollout.UnhealthyAfter)}
}

func (c Config) deadlines() *deploymentv1.Deadlines {
	r := c.Rollout
	return &deploymentv1.Deadlines{Placement: durationpb.New(r.PlacementTimeout), Start: durationpb.New(r.StartTimeout),
		Healthy: durationpb.New(r.HealthyTimeout), Stop: durationpb.New(r.StopTimeout),
		Drain: durationpb.New(r.Drain), Grace: durationpb.New(r.Grace)}
}
