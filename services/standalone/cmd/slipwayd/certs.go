package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/slipway-paas/slipway/libs/ca"
	"github.com/slipway-paas/slipway/libs/config"
)

// certsConfig is what `slipwayd certs` is told.
type certsConfig struct {
	Dir      string        `koanf:"dir" usage:"directory of the authority (ca.crt, ca.key), made when it is not there, and of what it signs"`
	Life     time.Duration `koanf:"life" default:"720h" usage:"how long the certificates are good, 1m to 2160h"`
	Services []string      `koanf:"services" default:"gateway,identity,scheduler,billing,webhooks,domains,dns" usage:"services to give a new certificate"`
}

// Validate names what is missing.
func (c certsConfig) Validate() error {
	if c.Dir == "" {
		return errors.New("--dir: name the directory of the certificates")
	}
	if len(c.Services) == 0 {
		return errors.New("--services: name at least one")
	}
	return nil
}

// certs gives services new certificates for the calls between them.
func certs(args []string, now time.Time, stdout, stderr io.Writer) int {
	var c certsConfig
	var help *config.Help
	switch err := config.Load("slipwayd certs", args, nil, &c); {
	case errors.As(err, &help):
		fmt.Fprint(stdout, help.Text)
		return exitOK
	case errors.Is(err, config.ErrVersion):
		fmt.Fprintln(stdout, "slipwayd", version)
		return exitOK
	case err != nil:
		fmt.Fprintln(stderr, "slipwayd certs:", err)
		return exitUsage
	}
	authority, err := ca.Open(c.Dir, now)
	if err != nil {
		fmt.Fprintln(stderr, "slipwayd certs:", err)
		return exitFailed
	}
	for _, service := range c.Services {
		if err := authority.Issue(service, c.Life, now); err != nil {
			fmt.Fprintln(stderr, "slipwayd certs:", err)
			return exitFailed
		}
		fmt.Fprintf(stdout, "%s: --tls-ca %s --tls-identity %s, good until %s\n",
			service, authority.CertFile(), authority.IdentityFile(service), now.Add(c.Life).UTC().Format(time.RFC3339))
	}
	return exitOK
}
