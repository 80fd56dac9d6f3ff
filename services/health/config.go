package health

import (
	"errors"
	"time"
)

// Config bounds the prober. The zero value is made usable by New.
type Config struct {
	// Concurrency is how many probes may be under way at once; 256 when 0.
	Concurrency int `koanf:"probe-concurrency" default:"256" usage:"how many probes may be under way at once"`
	// DefaultInterval is between probes of a healthy instance whose health check
	// names none; 10 s when 0.
	DefaultInterval time.Duration `koanf:"probe-interval" default:"10s" usage:"between probes of a healthy instance whose health check names no interval"`
	// DefaultTimeout is how long an answer may take when the health check does not
	// say; 5 s when 0.
	DefaultTimeout time.Duration `koanf:"probe-timeout" default:"5s" usage:"how long a probe may take whose health check does not say"`
}

func (c Config) withDefaults() (Config, error) {
	if c.Concurrency < 0 || c.DefaultInterval < 0 || c.DefaultTimeout < 0 {
		return c, errors.New("health: concurrency, interval and timeout must not be negative")
	}
	if c.Concurrency == 0 {
		c.Concurrency = 256
	}
	if c.DefaultInterval == 0 {
		c.DefaultInterval = 10 * time.Second
	}
	if c.DefaultTimeout == 0 {
		c.DefaultTimeout = 5 * time.Second
	}
	return c, nil
}
