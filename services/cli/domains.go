package cli

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

// domains are the commands for names that apps' owners bring.
func (c *command) domains() []*cobra.Command {
	list := &cobra.Command{
		Use: "domains APP", Short: "Show the custom domains of an app", Args: cobra.ExactArgs(1), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			all, err := client.Domains(ctx, args[0])
			if err != nil {
				return err
			}
			return c.domainList(args[0], all)
		}),
	}
	verify := &cobra.Command{
		Use: "domains:verify APP NAME", Short: "Look at the DNS of a custom domain now", Args: cobra.ExactArgs(2), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			found, err := client.VerifyDomain(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			if !found.Success {
				return fail(ExitFailed, "%s", plain(found.Message))
			}
			if c.json {
				return c.printJSON(found)
			}
			_, err = fmt.Fprintln(c.env.Stdout, plain(found.Message))
			return err
		}),
	}
	return []*cobra.Command{
		list, c.addDomain(), verify,
		c.domainCommand("domains:remove APP NAME", "Remove a custom domain; the name is free at once", "removed", (*api.Client).RemoveDomain),
		c.domainCommand("domains:primary APP NAME", "Make a custom domain the app's primary one", "the primary domain", (*api.Client).SetPrimaryDomain),
	}
}

func (c *command) addDomain() *cobra.Command {
	var primary bool
	cmd := &cobra.Command{
		Use: "domains:add APP NAME", Short: "Add a custom domain, and say which DNS record makes it the app's", Args: cobra.ExactArgs(2),
		Example: "  slipway domains:add hello www.example.com", ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			d, err := client.AddDomain(ctx, args[0], args[1], primary)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"domain": d})
			}
			fmt.Fprintf(c.env.Stdout, "%s is added, and served once its DNS says that it is yours.\n", called(d))
			return c.advise(args[0], d)
		}),
	}
	cmd.Flags().BoolVar(&primary, "primary", false, "make it the app's primary domain")
	return cmd
}

// domainCommand is one that has no answer but that it is done.
func (c *command) domainCommand(use, short, done string, do func(*api.Client, context.Context, string, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(2), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			if err := do(client, ctx, args[0], args[1]); err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"domain": args[1], "application_id": args[0]})
			}
			_, err := fmt.Fprintf(c.env.Stdout, "%s is %s.\n", plain(args[1]), done)
			return err
		}),
	}
}

func (c *command) domainList(app string, all []api.Domain) error {
	if c.json {
		if all == nil {
			all = []api.Domain{}
		}
		return c.printJSON(map[string]any{"domains": all})
	}
	if len(all) == 0 {
		_, err := fmt.Fprintf(c.env.Stdout, "The app has no custom domains; add one with: slipway domains:add %s NAME\n", plain(app))
		return err
	}
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DOMAIN\tSTATUS\tPRIMARY\tHTTPS\tREASON")
	for _, d := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", called(d), plain(d.Status), yes(d.IsPrimary), yes(d.SSLActive), plain(d.Reason))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the list: %w", err)
	}
	for _, d := range all {
		if d.VerifiedAt == nil {
			fmt.Fprintf(c.env.Stdout, "\n%s is not verified yet.\n", called(d))
			if err := c.advise(app, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// advise says which records make the domain the app's.
func (c *command) advise(app string, d api.Domain) error {
	required := false
	for _, r := range d.Records {
		required = required || r.Required
	}
	if required {
		fmt.Fprintln(c.env.Stdout, "Another organization has it too: make the TXT record, and the one that leads here, at whoever runs its DNS:")
	} else {
		fmt.Fprintln(c.env.Stdout, "Make one of these records at whoever runs its DNS (the first leads visitors here, TXT alone only proves that it is yours):")
	}
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	for _, r := range d.Records {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", plain(r.Type), plain(r.Name), plain(r.Value))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the records: %w", err)
	}
	_, err := fmt.Fprintf(c.env.Stdout, "It is looked at by itself; at once with: slipway domains:verify %s %s\n", plain(app), plain(d.Domain))
	return err
}

// called is a domain in both of its forms, where they differ.
func called(d api.Domain) string {
	if d.DomainUnicode == "" || d.DomainUnicode == d.Domain {
		return plain(d.Domain)
	}
	return plain(d.Domain + " (" + d.DomainUnicode + ")")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}
