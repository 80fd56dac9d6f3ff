package identity

import (
	"errors"
	"fmt"
	"time"

	"github.com/slipway-paas/slipway/services/identity/mail"
)

// Config is what an operator of the platform can set. Zero values mean defaults.
type Config struct {
	// SessionTTL is how long a login lasts: 24 hours.
	SessionTTL time.Duration `koanf:"session-ttl" usage:"how long a login lasts"`
	// Issuer is what sessions' tokens name as theirs: where the gateway answers.
	Issuer string `koanf:"-"`
	// SubscriptionsURL is where NATS clients of organizations connect; shown to them.
	SubscriptionsURL string `koanf:"subscriptions-url" usage:"where NATS clients outside connect to read events, e.g. tls://events.example.com:4223; shown with new event credentials"`
	// SMTP, when it names a server, makes new accounts prove their address.
	SMTP mail.Config `koanf:"smtp"`
}

// DefaultConfig is what holds where nothing else is said.
func DefaultConfig() Config {
	return Config{SessionTTL: 24 * time.Hour, Issuer: "slipway", SMTP: mail.Config{TLS: "starttls"}}
}

func (c Config) withDefaults() Config {
	d := DefaultConfig()
	if c.SessionTTL == 0 {
		c.SessionTTL = d.SessionTTL
	}
	if c.Issuer == "" {
		c.Issuer = d.Issuer
	}
	return c
}

// Validate says everything that is wrong.
func (c Config) Validate() error {
	errs := []error{c.SMTP.Validate()}
	if c.SessionTTL < 0 || c.SessionTTL > 366*24*time.Hour {
		errs = append(errs, fmt.Errorf("--session-ttl: %v must be up to a year", c.SessionTTL))
	}
	return errors.Join(errs...)
}
