package standalone

import (
	"errors"
	"fmt"
	"os"

	"github.com/slipway-paas/slipway/libs/natsconn"
)

// NATSUsers makes sure of the key files in the data directory, those of the roles and of
// this machine's node, and returns the part of a NATS server's configuration that lets
// them and every other node that has a key connect.
func NATSUsers(c Config) (string, error) {
	keys, err := ensureKeys(c, c.Node.ID)
	if err != nil {
		return "", err
	}
	return keys.Users(), nil
}

// AddNode makes the key of one more node in the data directory and returns its file. A
// running daemon's NATS server knows it within a second; NATS servers of the operator's
// own must be told by NATSUsers.
func AddNode(c Config, id string) (keyFile string, err error) {
	keys, err := ensureKeys(c)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(keys.NodeSeedFile(id)); err == nil {
		return "", fmt.Errorf("the node %q has a key already: %s; remove that file first to give it a new one", id, keys.NodeSeedFile(id))
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("add a node: %w", err)
	}
	if keys, err = ensureKeys(c, id); err != nil {
		return "", err
	}
	return keys.NodeSeedFile(id), nil
}

func ensureKeys(c Config, nodes ...string) (natsconn.Keys, error) {
	if err := os.MkdirAll(c.DataDir, dataDirMode); err != nil {
		return natsconn.Keys{}, fmt.Errorf("--data-dir: %w", err)
	}
	return natsconn.EnsureKeys(c.dir().NATSKeys(), nodes...)
}
