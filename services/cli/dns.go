package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

// dns are the zones that the platform holds, and the tunnels into it.
func (c *command) dns() *cobra.Command {
	dns := &cobra.Command{
		Use: "dns", Short: "The DNS zones that the platform holds, and its tunnels", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	status := &cobra.Command{
		Use: "status", Short: "Show the zones, and which records are wanted and not there", Args: cobra.NoArgs,
		RunE: c.calling(func(ctx context.Context, client *api.Client, _ []string) error {
			d, err := client.DNS(ctx)
			if err != nil {
				return err
			}
			return c.dnsStatus(d)
		}),
	}
	sync := &cobra.Command{
		Use: "sync", Short: "Compare all that is wanted with all that is there, now", Args: cobra.NoArgs,
		RunE: c.calling(func(ctx context.Context, client *api.Client, _ []string) error {
			done, err := client.SyncDNS(ctx)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(done)
			}
			fmt.Fprintf(c.env.Stdout, "%d records are wanted, %d are there, %d cannot be made.\n", done.Wanted, done.Applied, done.Failed)
			return c.dnsTrouble(done.Trouble)
		}),
	}
	dns.AddCommand(status, sync, c.tunnels())
	return dns
}

// dnsTrouble fails when something is wrong, and says what.
func (c *command) dnsTrouble(trouble string) error {
	if trouble == "" {
		return nil
	}
	return fail(ExitFailed, "%s", plain(trouble))
}

func (c *command) dnsStatus(d api.DNS) error {
	if c.json {
		return c.printJSON(d)
	}
	out := c.env.Stdout
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ZONE\tUSE")
	for _, z := range d.Zones {
		fmt.Fprintf(w, "%s\t%s\n", plain(z.Name), plain(z.Use))
	}
	if len(d.Failures) > 0 {
		fmt.Fprintln(w, "\nNOT THERE\tTYPE\tWHY\tORG\tREASON")
		for _, f := range d.Failures {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", plain(f.Name), plain(f.Type), plain(f.Code), plain(f.Org), plain(f.Reason))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nProvider %s: %d records are wanted, %d are there, %d cannot be made. Last compared %s.\n", plain(d.Provider), d.Wanted, d.Applied, d.Failed, when(d.ComparedAt))
	if d.Trouble != "" {
		fmt.Fprintln(c.env.Stderr, plain(d.Trouble))
	}
	return nil
}

func (c *command) tunnels() *cobra.Command {
	tunnels := &cobra.Command{
		Use: "tunnels", Short: "Tunnels from the DNS provider to an edge", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := &cobra.Command{
		Use: "list", Short: "List the tunnels", Args: cobra.NoArgs,
		RunE: c.calling(func(ctx context.Context, client *api.Client, _ []string) error {
			all, err := client.Tunnels(ctx)
			if err != nil {
				return err
			}
			if c.json {
				if all == nil {
					all = []api.Tunnel{}
				}
				return c.printJSON(map[string]any{"tunnels": all})
			}
			return c.tunnelTable(all...)
		}),
	}
	var hostnames []string
	var service string
	create := &cobra.Command{
		Use: "create NAME", Short: "Make a tunnel with its rules and DNS routes, or give one other hostnames", Args: cobra.ExactArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			t, err := client.CreateTunnel(ctx, api.TunnelRequest{Name: args[0], Hostnames: hostnames, Service: service})
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"tunnel": t})
			}
			if err := c.tunnelTable(t); err != nil {
				return err
			}
			if t.Status == "ready" {
				fmt.Fprintf(c.env.Stdout, "\nRun cloudflared where %s answers: slipway admin dns tunnels token %s says how.\n", plain(t.Service), plain(t.Name))
			}
			return nil
		}),
	}
	create.Flags().StringSliceVar(&hostnames, "hostname", nil, "name that leads through it, *.example.com for all below one; the base domain and all below it when none is given")
	create.Flags().StringVar(&service, "service", "", "where cloudflared reaches an edge, like http://127.0.0.1:8000")
	remove := &cobra.Command{
		Use: "delete NAME", Short: "Remove the tunnel's DNS routes, then the tunnel", Args: cobra.ExactArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			message, err := client.DeleteTunnel(ctx, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"message": message})
			}
			_, err = fmt.Fprintln(c.env.Stdout, plain(message))
			return err
		}),
	}
	token := &cobra.Command{
		Use: "token NAME", Short: "Show the secret that cloudflared runs with, and how; whoever has it can serve the tunnel's names", Args: cobra.ExactArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			t, err := client.TunnelToken(ctx, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(t)
			}
			// The secret alone, for a file or a variable; what to do with it for people.
			fmt.Fprintln(c.env.Stderr, "Run it with:", plain(t.Command))
			_, err = fmt.Fprintln(c.env.Stdout, plain(t.Token))
			return err
		}),
	}
	tunnels.AddCommand(list, create, remove, token)
	return tunnels
}

func (c *command) tunnelTable(all ...api.Tunnel) error {
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATUS\tHOSTNAMES\tSERVICE\tREASON")
	for _, t := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", plain(t.Name), t.Status, plain(strings.Join(t.Hostnames, ", ")), plain(t.Service), plain(t.Reason))
	}
	return w.Flush()
}
