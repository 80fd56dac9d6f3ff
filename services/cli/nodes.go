package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

// lookEvery is how often work under way is looked at: the API takes 30 reads a minute.
const lookEvery = 3 * time.Second

func (c *command) nodes() *cobra.Command {
	nodes := &cobra.Command{
		Use: "nodes", Short: "The machines that run containers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := &cobra.Command{
		Use: "list", Short: "List the nodes and what is promised on them", Args: cobra.NoArgs,
		RunE: c.calling(func(ctx context.Context, client *api.Client, _ []string) error {
			all, err := client.Nodes(ctx)
			if err != nil {
				return err
			}
			if c.json {
				if all == nil {
					all = []api.Node{}
				}
				return c.printJSON(map[string]any{"nodes": all})
			}
			return c.nodeTable(all...)
		}),
	}
	uncordon := &cobra.Command{
		Use: "uncordon NODE", Short: "Let the node take instances again", Args: cobra.ExactArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			node, err := client.Uncordon(ctx, args[0])
			if err != nil {
				return err
			}
			return c.nodeAnswer(node)
		}),
	}
	nodes.AddCommand(list, c.drain(), uncordon)
	return nodes
}

func (c *command) drain() *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Move the node's instances away and let it take no more", Args: cobra.ExactArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			node, err := client.Drain(ctx, args[0])
			if err != nil {
				return err
			}
			if wait {
				bounded, cancel := context.WithTimeout(ctx, timeout)
				defer cancel()
				if node, err = c.drained(bounded, client, node); err != nil {
					if bounded.Err() != nil && ctx.Err() == nil {
						return fail(ExitFailed, "Node %s still has %d instances after %s; the drain goes on. Is there room on other nodes?", args[0], node.Instances, timeout)
					}
					return err
				}
			}
			return c.nodeAnswer(node)
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until nothing runs there any more")
	cmd.Flags().DurationVar(&timeout, "timeout", 15*time.Minute, "how long to wait")
	return cmd
}

// drained waits until nothing runs on the node any more.
func (c *command) drained(ctx context.Context, client *api.Client, node api.Node) (api.Node, error) {
	for said := node.Instances + 1; node.Instances > 0; {
		if !c.json && node.Instances != said {
			fmt.Fprintf(c.env.Stderr, "%d instances left on %s\n", node.Instances, plain(node.NodeID))
			said = node.Instances
		}
		select {
		case <-ctx.Done():
			return node, ctx.Err()
		case <-time.After(lookEvery):
		}
		all, err := client.Nodes(ctx)
		if err != nil {
			return node, err
		}
		for _, n := range all {
			if n.NodeID == node.NodeID {
				node = n
			}
		}
	}
	return node, nil
}

func (c *command) nodeAnswer(node api.Node) error {
	if c.json {
		return c.printJSON(map[string]any{"node": node})
	}
	return c.nodeTable(node)
}

func (c *command) nodeTable(all ...api.Node) error {
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATUS\tINSTANCES\tMEMORY MB\tCPU MILLICORES\tSEEN")
	for _, n := range all {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d of %d\t%d of %d\t%s\n", plain(n.NodeID), n.Status, n.Instances, n.UsedMemoryMB, n.MemoryMB, n.UsedCPUMillicores, n.CPUMillicores, when(n.SeenAt))
	}
	return w.Flush()
}
