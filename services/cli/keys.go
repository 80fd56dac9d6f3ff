package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

func (c *command) keys() *cobra.Command {
	keys := &cobra.Command{
		Use: "keys", Short: "The keys that secrets are sealed with", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	keys.AddCommand(&cobra.Command{
		Use: "rotate", Short: "Wrap every data key with a new master key, or go on with a rotation that was interrupted", Args: cobra.NoArgs,
		RunE: c.calling(func(ctx context.Context, client *api.Client, _ []string) error {
			done, err := client.RotateKeys(ctx)
			if err != nil {
				return err
			}
			return c.rotated(done)
		}),
	})
	return keys
}

func (c *command) rotated(done api.RotatedKeys) error {
	if c.json {
		return c.printJSON(done)
	}
	out := c.env.Stdout
	if done.Resumed {
		fmt.Fprintln(out, "An earlier rotation was not finished; it is now.")
	}
	fmt.Fprintf(out, "%d data keys are wrapped with the master key %s, %d of them anew.\n", done.DataKeys-min(done.Unreadable, done.DataKeys), plain(done.Key), done.Rewrapped)
	if len(done.Dropped) > 0 {
		fmt.Fprintf(out, "The master key %s is dropped. Take a backup now: older ones open with older keys.\n", plain(strings.Join(done.Dropped, ", ")))
	}
	if len(done.Old) > 0 {
		fmt.Fprintf(out, "Take the master key %s out of SLIPWAY_MASTER_KEYS now, and restart every process.\n", plain(strings.Join(done.Old, ", ")))
	}
	if done.Unreadable > 0 {
		fmt.Fprintf(c.env.Stderr, "%d data keys open with no master key; what was sealed with them was lost before.\n", done.Unreadable)
	}
	return nil
}
