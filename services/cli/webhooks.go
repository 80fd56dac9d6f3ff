package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

// webhooks are the commands that set up where an organization's events go.
func (c *command) webhooks() []*cobra.Command {
	one := func(use, short string, do func(context.Context, *api.Client, string) error) *cobra.Command {
		return &cobra.Command{
			Use: use + " ID", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeWebhook,
			RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error { return do(ctx, client, args[0]) }),
		}
	}
	list := func(use string) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: "List the organization's webhooks", Args: cobra.NoArgs,
			Long: "Webhooks tell endpoints outside of the organization's events. They are for its admins and owners.",
			RunE: c.calling(func(ctx context.Context, client *api.Client, _ []string) error { return c.listWebhooks(ctx, client) }),
		}
	}
	return []*cobra.Command{
		list("webhooks"), list("webhooks:list"), c.createWebhook(), c.updateWebhook(), c.deleteWebhook(), c.replayWebhook(),
		one("webhooks:info", "Show one webhook", func(ctx context.Context, client *api.Client, id string) error {
			return c.webhookAnswer(client.Webhook(ctx, id))
		}),
		one("webhooks:enable", "Deliver again after it was disabled, what happens from now on", func(ctx context.Context, client *api.Client, id string) error {
			return c.webhookAnswer(client.EnableWebhook(ctx, id))
		}),
		one("webhooks:rotate-secret", "Give it another secret, which is shown this once; the old one signs too for a day", func(ctx context.Context, client *api.Client, id string) error {
			return c.secretAnswer(client.RotateWebhookSecret(ctx, id))
		}),
		one("webhooks:test", "Send one test message now and say how the endpoint took it", c.testWebhook),
		one("webhooks:deliveries", "List the last deliveries, those of the newest events first", c.listDeliveries),
	}
}

// describes puts what a webhook is on a command's flags.
func describes(cmd *cobra.Command, w *api.WebhookRequest) {
	cmd.Flags().StringSliceVar(&w.Types, "type", nil, "tell of events of this type only, such as DeploymentRunning; may be repeated")
	cmd.Flags().StringSliceVar(&w.Aggregates, "aggregate", nil, "tell of events of this only, such as deployment; may be repeated")
	cmd.Flags().StringVar(&w.Description, "description", "", "what it is for")
}

func (c *command) createWebhook() *cobra.Command {
	var w api.WebhookRequest
	cmd := &cobra.Command{
		Use: "webhooks:create URL", Short: "Make a webhook; its secret is shown this once", Args: cobra.ExactArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			w.URL = args[0]
			return c.secretAnswer(client.CreateWebhook(ctx, w))
		}),
	}
	describes(cmd, &w)
	return cmd
}

func (c *command) updateWebhook() *cobra.Command {
	var w api.WebhookRequest
	cmd := &cobra.Command{
		Use: "webhooks:update ID", Short: "Change what is named and leave the rest; --type= tells of all types again",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeWebhook,
	}
	cmd.Flags().StringVar(&w.URL, "url", "", "where it leads")
	describes(cmd, &w)
	cmd.RunE = c.calling(func(ctx context.Context, client *api.Client, args []string) error {
		said := cmd.Flags().Changed
		if !said("url") && !said("type") && !said("aggregate") && !said("description") {
			return usage("There is nothing to change; name --url, --type, --aggregate or --description.")
		}
		now, err := client.Webhook(ctx, args[0])
		if err != nil {
			return err
		}
		if !said("url") {
			w.URL = now.URL
		}
		if !said("type") {
			w.Types = now.Types
		}
		if !said("aggregate") {
			w.Aggregates = now.Aggregates
		}
		if !said("description") {
			w.Description = now.Description
		}
		return c.webhookAnswer(client.UpdateWebhook(ctx, args[0], w))
	})
	return cmd
}

func (c *command) deleteWebhook() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "webhooks:delete ID", Short: "End a webhook for good", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeWebhook,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			if !yes {
				if err := c.confirmed("Deleting "+args[0]+" cannot be undone", args[0]); err != nil {
					return err
				}
			}
			message, err := client.DeleteWebhook(ctx, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"message": message, "id": args[0]})
			}
			_, err = fmt.Fprintln(c.env.Stdout, message)
			return err
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (c *command) replayWebhook() *cobra.Command {
	var delivery string
	var after uint64
	cmd := &cobra.Command{
		Use: "webhooks:replay ID", Short: "Deliver again: one delivery, or all events after a sequence, a thousand at most",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeWebhook,
	}
	cmd.Flags().StringVar(&delivery, "delivery", "", "id of a delivery that has ended")
	cmd.Flags().Uint64Var(&after, "after", 0, "all events after the one with this sequence, 0 for all that there are")
	cmd.RunE = c.calling(func(ctx context.Context, client *api.Client, args []string) error {
		if cmd.Flags().Changed("delivery") == cmd.Flags().Changed("after") {
			return usage("Say what to deliver again: either --delivery ID or --after SEQUENCE.")
		}
		replay := func() (api.WebhookReplay, error) { return client.ReplayEvents(ctx, args[0], after) }
		if cmd.Flags().Changed("delivery") {
			replay = func() (api.WebhookReplay, error) { return client.ReplayDelivery(ctx, args[0], delivery) }
		}
		done, err := replay()
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(done)
		}
		_, err = fmt.Fprintf(c.env.Stdout, "%d deliveries are under way again; the last event that was looked at is %d.\n", done.Replayed, done.LastSequence)
		return err
	})
	return cmd
}

func (c *command) listWebhooks(ctx context.Context, client *api.Client) error {
	all, err := client.Webhooks(ctx)
	if err != nil {
		return err
	}
	if c.json {
		if all == nil {
			all = []api.Webhook{}
		}
		return c.printJSON(map[string]any{"webhooks": all})
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.env.Stdout, "There are no webhooks yet; make one with: slipway webhooks:create https://example.com/hook")
		return err
	}
	return table(c.env.Stdout, "ID\tURL\tEVENTS\tSTATUS", func(line func(...any)) {
		for _, w := range all {
			line(w.ID, plain(w.URL), plain(toldOf(w)), plain(standing(w)))
		}
	})
}

// toldOf is which events a webhook is told of.
func toldOf(w api.Webhook) string {
	if len(w.Types)+len(w.Aggregates) == 0 {
		return "all"
	}
	return strings.Join(append(append([]string(nil), w.Aggregates...), w.Types...), " ")
}

func standing(w api.Webhook) string {
	if w.DisabledReason != "" {
		return w.Status + " (" + w.DisabledReason + ")"
	}
	return w.Status
}

// webhookAnswer prints a webhook that a call came back with.
func (c *command) webhookAnswer(w api.Webhook, err error) error {
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]any{"webhook": w})
	}
	return c.describe(w, "")
}

// secretAnswer prints a webhook and its secret, which nobody shows again.
func (c *command) secretAnswer(w api.Webhook, secret string, err error) error {
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]any{"webhook": w, "secret": secret})
	}
	if err := c.describe(w, secret); err != nil {
		return err
	}
	fmt.Fprintln(c.env.Stderr, "Keep the secret where the endpoint checks signatures; it is not shown again.")
	return nil
}

func (c *command) describe(w api.Webhook, secret string) error {
	out := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, "%s:\t%s\n", name, plain(value))
		}
	}
	line("ID", w.ID)
	line("URL", w.URL)
	line("For", w.Description)
	line("Events", toldOf(w))
	line("Status", standing(w))
	line("Made", when(&w.CreatedAt))
	line("By", w.CreatedBy)
	line("Secret", secret)
	return out.Flush()
}

func (c *command) testWebhook(ctx context.Context, client *api.Client, id string) error {
	got, err := client.TestWebhook(ctx, id)
	if err != nil {
		return err
	}
	switch {
	case c.json:
		err = c.printJSON(got)
	case got.Accepted:
		_, err = fmt.Fprintf(c.env.Stdout, "The endpoint took %s and answered %d.\n", plain(got.ID), got.Status)
	}
	if err == nil && !got.Accepted {
		return fail(ExitFailed, "The endpoint did not take %s. %s", got.ID, got.Error)
	}
	return err
}

func (c *command) listDeliveries(ctx context.Context, client *api.Client, id string) error {
	all, err := client.WebhookDeliveries(ctx, id)
	if err != nil {
		return err
	}
	if c.json {
		if all == nil {
			all = []api.WebhookDelivery{}
		}
		return c.printJSON(map[string]any{"deliveries": all})
	}
	return table(c.env.Stdout, "ID\tSEQUENCE\tEVENT\tSTATUS\tATTEMPTS\tANSWER\tNEXT\tWHY", func(line func(...any)) {
		for _, d := range all {
			line(d.ID, d.EventSequence, plain(d.EventType), plain(d.Status), d.Attempts, d.LastStatus, when(d.NextAttemptAt), plain(d.LastError))
		}
	})
}

// completeWebhook offers the ids of what there is.
func (c *command) completeWebhook(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := c.client(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := client.Webhooks(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, w := range all {
		ids = append(ids, w.ID+"\t"+plain(w.URL))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
