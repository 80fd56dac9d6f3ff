package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

func (c *command) status() *cobra.Command {
	return &cobra.Command{
		Use: "status [ID|SUBDOMAIN]", Short: "Show one deployment, or all", Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			if len(args) == 0 {
				return c.listed(ctx, client)
			}
			id, err := find(ctx, client, args[0], false)
			if err != nil {
				return err
			}
			d, err := client.Get(ctx, id)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"deployment": d, "address": c.address(d)})
			}
			return c.shown(d)
		}),
	}
}

func (c *command) listed(ctx context.Context, client *api.Client) error {
	all, err := client.List(ctx)
	if err != nil {
		return err
	}
	if c.json {
		if all == nil {
			all = []api.Deployment{}
		}
		return c.printJSON(map[string]any{"deployments": all})
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.env.Stdout, "There are no deployments yet; make one with: slipway deploy IMAGE --subdomain NAME")
		return err
	}
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SUBDOMAIN\tSTATUS\tHEALTH\tIMAGE\tID")
	for _, d := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.Subdomain, d.Status, d.HealthStatus, plain(d.ContainerImage), d.ID)
	}
	return w.Flush()
}

func (c *command) shown(d api.Deployment) error {
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s:\t%s\n", name, plain(value))
		}
	}
	line("ID", d.ID)
	line("Address", c.address(d))
	line("Domain", deref(d.CustomDomain))
	line("Status", d.Status)
	line("Reason", deref(d.StatusReason))
	line("Health", d.HealthStatus)
	line("Checked", when(d.LastHealthCheck))
	line("Image", d.ContainerImage)
	line("Container", d.ContainerName)
	line("Node", deref(d.HostServer))
	line("Limits", fmt.Sprintf("%d MB, %d millicores", d.MemoryLimitMB, d.CPULimitMillicores))
	line("Billing", d.BillingStatus)
	line("Made", when(d.InsertedAt))
	line("Deployed", when(d.DeployedAt))
	line("Stopped", when(d.StoppedAt))
	return w.Flush()
}

func (c *command) logs() *cobra.Command {
	var source string
	var lines int
	var follow bool
	cmd := &cobra.Command{
		Use: "logs ID|SUBDOMAIN", Short: "Show the audit log: who did what, and how it ended; with --source router its requests", Args: cobra.ExactArgs(1), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			switch {
			case source == "router":
				return c.routerLog(ctx, client, args[0], lines, follow)
			case source != "audit":
				return usage("There is no source %q; there are audit and router.", source)
			case follow:
				return usage("The audit log is not followed; slipway events %s --follow shows what happens.", args[0])
			}
			id, err := find(ctx, client, args[0], false)
			if err != nil {
				return err
			}
			logs, err := client.Logs(ctx, id)
			if err != nil {
				return err
			}
			if c.json {
				if logs == nil {
					logs = []api.LogEntry{}
				}
				return c.printJSON(map[string]any{"logs": logs})
			}
			w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "TIME\tACTION\tSTATUS\tBY\tDETAILS")
			for _, e := range logs {
				by := deref(e.InitiatedBy)
				if by == "" {
					by = "slipway"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", when(&e.InsertedAt), e.Action, e.Status, plain(by), plain(details(e.Details)))
			}
			return w.Flush()
		}),
	}
	cmd.Flags().StringVar(&source, "source", "audit", "audit, or router for the requests as the edges served them")
	cmd.Flags().IntVarP(&lines, "lines", "n", 100, "how many requests to begin with")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as requests come")
	return cmd
}

// details is the reason alone where there is one, since it is a sentence.
func details(raw json.RawMessage) string {
	var d map[string]any
	if err := json.Unmarshal(raw, &d); err != nil || len(d) == 0 {
		return ""
	}
	for _, field := range []string{"reason", "status_reason", "message"} {
		if s, ok := d[field].(string); ok && s != "" {
			return s
		}
	}
	return string(raw)
}

func (c *command) events() *cobra.Command {
	var follow bool
	var after uint64
	cmd := &cobra.Command{
		Use: "events ID|SUBDOMAIN", Short: "Show the deployment's own events; with --json one JSON object a line",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			id, err := find(ctx, client, args[0], false)
			if err != nil {
				return err
			}
			read := client.Past
			if follow {
				read = client.Follow
			}
			return read(ctx, id, after, func(e api.Event) error {
				if c.json {
					_, err := fmt.Fprintf(c.env.Stdout, "%s\n", e.Raw)
					return err
				}
				_, err := fmt.Fprintf(c.env.Stdout, "%s  %6d  %-20s  %s\n", when(&e.Time), e.Sequence, e.Type, plain(describe(e)))
				return err
			})
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as events happen")
	cmd.Flags().Uint64Var(&after, "after", 0, "begin after the event with this sequence")
	return cmd
}

func (c *command) destroy() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "destroy ID|SUBDOMAIN", Short: "Remove a deployment for good; its subdomain is free at once",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			id, err := find(ctx, client, args[0], true)
			if err != nil {
				return err
			}
			if !yes {
				if err := c.confirm(args[0]); err != nil {
					return err
				}
			}
			message, err := client.Destroy(ctx, id)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"message": message, "id": id})
			}
			_, err = fmt.Fprintln(c.env.Stdout, message)
			return err
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (c *command) confirm(name string) error {
	return c.confirmed("Destroying "+name+" cannot be undone", name)
}

// confirmed asks for the name of what something is done to; what says what that does.
func (c *command) confirmed(what, name string) error {
	if !c.env.Interactive {
		return usage("%s; say --yes to do it without being asked.", what)
	}
	fmt.Fprintf(c.env.Stderr, "%s. Type its name to go on: ", plain(what))
	answer, err := bufio.NewReader(c.env.Stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != name {
		return fail(ExitFailed, "Nothing was changed.")
	}
	return nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func when(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
