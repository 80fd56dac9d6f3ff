package standalone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/slipway-paas/slipway/libs/datadir"
	"github.com/slipway-paas/slipway/services/node-agent/node"
	"github.com/slipway-paas/slipway/services/standalone/internal/edge"
	"github.com/slipway-paas/slipway/services/standalone/internal/postgres"
)

// Purge removes a data directory with all that the platform keeps on the machine
// because of it: containers, networks, mounts and an edge that was left. It is no
// error when there is nothing; it is one when a daemon uses the directory.
func Purge(ctx context.Context, c Config, log *slog.Logger) error {
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	c.DataDir = dir
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	held, err := datadir.Acquire(dir)
	if err != nil {
		return err
	}
	defer func() { _ = held.Release() }() // the process's end does it too
	if err := edge.Stop(ctx, c.dir().Edge()); err != nil {
		return err
	}
	if err := postgres.StopLeft(ctx, c.dir().Postgres(), log); err != nil {
		return err
	}
	nodes, err := os.ReadDir(filepath.Dir(c.dir().Node(c.Node.ID)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for nodes: %w", err)
	}
	for _, entry := range nodes {
		c.Node.ID = entry.Name()
		if err := node.Purge(ctx, c.node(), log); err != nil {
			return fmt.Errorf("remove what node %s left: %w", c.Node.ID, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the data directory: %w", err)
	}
	return nil
}
