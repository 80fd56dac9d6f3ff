package standalone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// address is one that is listened on, and the flag it was given by.
type address struct {
	flag     string
	hostPort string
}

// checkFree finds addresses that are taken before anything is started, to say which
// flag to change.
func checkFree(ctx context.Context, addresses []address) error {
	var errs []error
	var lc net.ListenConfig
	for _, a := range addresses {
		listener, err := lc.Listen(ctx, "tcp", a.hostPort)
		if err == nil {
			err = listener.Close()
		}
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			errs = append(errs, fmt.Errorf("%s: %s is in use by another process: stop it, or choose another with %s or %s",
				a.flag, a.hostPort, a.flag, variable(a.flag)))
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", a.flag, err))
		}
	}
	return errors.Join(errs...)
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return "SLIPWAY_" + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(flag, "--"), "-", "_"))
}
