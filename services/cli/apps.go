package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

func (c *command) ps() *cobra.Command {
	return &cobra.Command{
		Use: "ps APP", Short: "Show how many instances the app has", Args: cobra.ExactArgs(1), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			all, err := client.Processes(ctx, args[0])
			if err != nil {
				return err
			}
			return c.processes(all)
		}),
	}
}

func (c *command) scale() *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use: "ps:scale APP TYPE=COUNT...", Short: "Change how many instances the app has", Args: cobra.MinimumNArgs(1), ValidArgsFunction: c.complete,
		Example: "  slipway ps:scale my-app web=3\n  slipway ps:scale web=3 --app my-app",
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			if app == "" {
				app, args = args[0], args[1:]
			}
			if strings.Contains(app, "=") {
				return usage("Name the app: slipway ps:scale APP %s, or --app APP.", app)
			}
			counts, err := processCounts(args)
			if err != nil {
				return err
			}
			all, err := client.Scale(ctx, app, counts)
			if err != nil {
				return err
			}
			return c.processes(all)
		}),
	}
	cmd.Flags().StringVarP(&app, "app", "a", "", "the app, instead of as the first argument")
	return cmd
}

// processCounts reads arguments like web=3.
func processCounts(args []string) (map[string]int, error) {
	counts := map[string]int{}
	for _, arg := range args {
		kind, text, ok := strings.Cut(arg, "=")
		n, err := strconv.Atoi(text)
		if !ok || err != nil || kind == "" || n < 0 {
			return nil, usage("%q is no count; write it like web=3.", arg)
		}
		if _, twice := counts[kind]; twice {
			return nil, usage("%s is there twice; say one count.", kind)
		}
		counts[kind] = n
	}
	if len(counts) == 0 {
		return nil, usage("Say how many of which, like web=3.")
	}
	return counts, nil
}

func (c *command) processes(all []api.Process) error {
	if c.json {
		if all == nil {
			all = []api.Process{}
		}
		return c.printJSON(map[string]any{"processes": all})
	}
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TYPE\tCOUNT\tSTATUS\tCOMMAND")
	for _, p := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", plain(p.Type), p.Count, plain(p.Status), plain(p.Command))
	}
	return w.Flush()
}

func (c *command) releases() *cobra.Command {
	return &cobra.Command{
		Use: "releases APP", Short: "Show the app's releases, newest first", Args: cobra.ExactArgs(1), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			all, err := client.Releases(ctx, args[0])
			if err != nil {
				return err
			}
			if c.json {
				if all == nil {
					all = []api.Release{}
				}
				return c.printJSON(map[string]any{"releases": all})
			}
			return c.releaseTable(all...)
		}),
	}
}

func (c *command) releaseTable(all ...api.Release) error {
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tSTATUS\tIMAGE\tCONFIG\tMADE\tBY")
	for _, r := range all {
		fmt.Fprintf(w, "v%d\t%s\t%s\t%s\t%s\t%s\n", r.Version, plain(r.Status), plain(r.Image), plain(r.ConfigVersion), when(r.CreatedAt), plain(r.CreatedBy))
	}
	return w.Flush()
}

func (c *command) rollback() *cobra.Command {
	return &cobra.Command{
		Use: "rollback APP [vN]", Short: "Roll out what an older release was; the one that ran before when none is named",
		Args: cobra.RangeArgs(1, 2), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			version := 0
			if len(args) == 2 {
				n, err := strconv.Atoi(strings.TrimPrefix(args[1], "v"))
				if err != nil || n < 1 {
					return usage("%q is no release; write it like v3. slipway releases %s lists them.", args[1], args[0])
				}
				version = n
			}
			release, err := client.Rollback(ctx, args[0], version)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"release": release})
			}
			return c.releaseTable(release)
		}),
	}
}
