package standalone

import (
	"fmt"
	"os"

	"github.com/slipway-paas/slipway/libs/natsconn"
)

// NATSUsers makes sure of the roles' key files in the data directory and returns the
// part of a NATS server's configuration that lets them connect.
func NATSUsers(c Config) (string, error) {
	if err := os.MkdirAll(c.DataDir, dataDirMode); err != nil {
		return "", fmt.Errorf("--data-dir: %w", err)
	}
	keys, err := natsconn.EnsureKeys(c.dir().NATSKeys())
	if err != nil {
		return "", err
	}
	return keys.Users(), nil
}
