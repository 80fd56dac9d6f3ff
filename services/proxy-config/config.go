package proxyconfig

import (
	"errors"
	"fmt"
	"time"
)

// Config is what can be set.
type Config struct {
	EdgeSilence time.Duration `koanf:"edge-silence" usage:"an edge that says nothing for this long is not waited for"`
	ListenFirst time.Duration `koanf:"listen-first" usage:"how long edges are listened to before those heard are taken for all"`
	Recheck     time.Duration `koanf:"recheck" usage:"how often the whole view is compared with the log"`
}

// DefaultConfig fits edges that speak each second.
func DefaultConfig() Config {
	return Config{EdgeSilence: 5 * time.Second, ListenFirst: 1500 * time.Millisecond, Recheck: 5 * time.Minute}
}

// Validate says what to correct.
func (c Config) Validate() error {
	var errs []error
	if c.EdgeSilence <= 0 {
		errs = append(errs, fmt.Errorf("edge-silence: %s must be above 0", c.EdgeSilence))
	}
	if c.ListenFirst < 0 {
		errs = append(errs, fmt.Errorf("listen-first: %s must not be below 0", c.ListenFirst))
	}
	if c.Recheck < time.Second {
		errs = append(errs, fmt.Errorf("recheck: %s must be at least 1s", c.Recheck))
	}
	return errors.Join(errs...)
}
