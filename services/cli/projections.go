package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

func (c *command) rebuild() *cobra.Command {
	var accept bool
	cmd := &cobra.Command{
		Use: "rebuild NAME", Short: "Make a projection's rows anew beside the live ones, compare, and swap; NAME is deployments",
		Args: cobra.ExactArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			watching, stop := context.WithCancel(ctx)
			watched := make(chan struct{})
			go func() {
				defer close(watched)
				c.watchRebuild(watching, client, args[0])
			}()
			done, err := client.Rebuild(ctx, args[0], accept)
			stop()
			<-watched
			if err != nil {
				return err
			}
			return c.rebuilt(done)
		}),
	}
	cmd.Flags().BoolVar(&accept, "accept-differences", false, "swap also when old and new rows differ")
	return cmd
}

// watchRebuild tells how far a rebuild is until ctx ends.
func (c *command) watchRebuild(ctx context.Context, client *api.Client, name string) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// What cannot be seen is not shown; the rebuild itself says what goes wrong.
		p, err := client.Projection(ctx, name)
		if err != nil || p.Rebuild == nil || c.json {
			continue
		}
		if p.Rebuild.Position < p.Rebuild.Target {
			fmt.Fprintf(c.env.Stderr, "built up to event %d of %d\n", p.Rebuild.Position, p.Rebuild.Target)
		} else {
			fmt.Fprintf(c.env.Stderr, "comparing at event %d\n", p.Rebuild.Position)
		}
	}
}

func (c *command) rebuilt(done api.Rebuilt) error {
	if c.json {
		if done.Differences == nil {
			done.Differences = []string{}
		}
		if err := c.printJSON(done); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.env.Stdout, "%d events made %d rows in %.1f s.\n", done.Events, done.Rows, done.Seconds)
		for _, d := range done.Differences {
			fmt.Fprintln(c.env.Stdout, "  differs:", plain(d))
		}
	}
	switch {
	case !done.Swapped:
		return fail(ExitFailed, "The live rows are not what the log says, and were left as they are. Look at the differences; --accept-differences puts the rebuilt rows in their place.")
	case c.json:
		return nil
	case done.Identical:
		fmt.Fprintln(c.env.Stdout, "Old and new rows were the same, byte for byte; the new ones are live.")
	default:
		fmt.Fprintln(c.env.Stdout, "The new rows are live in place of those that differed.")
	}
	return nil
}

func (c *command) deadLetters() *cobra.Command {
	letters := &cobra.Command{
		Use: "dead-letters", Short: "Events whose rows could not be written", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	letters.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List those that wait, the oldest first", Args: cobra.NoArgs,
			RunE: c.calling(func(ctx context.Context, client *api.Client, _ []string) error {
				all, err := client.DeadLetters(ctx)
				if err != nil {
					return err
				}
				return c.letterTable(all)
			}),
		},
		&cobra.Command{
			Use: "show ID", Short: "Show one with what it says", Args: cobra.ExactArgs(1),
			RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
				d, err := client.DeadLetter(ctx, args[0])
				if err != nil {
					return err
				}
				return c.letterShown(d)
			}),
		},
		c.replay(), c.drop(),
	)
	return letters
}

func (c *command) letterTable(all []api.DeadLetter) error {
	if c.json {
		if all == nil {
			all = []api.DeadLetter{}
		}
		return c.printJSON(map[string]any{"dead_letters": all})
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.env.Stdout, "There are no dead letters.")
		return err
	}
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tEVENT\tSUBJECT\tSINCE\tERROR")
	for _, d := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", plain(d.ID), plain(d.EventType), plain(d.Subject), when(d.FailedAt), plain(d.Error))
	}
	return w.Flush()
}

func (c *command) letterShown(d api.DeadLetter) error {
	if c.json {
		return c.printJSON(map[string]any{"dead_letter": d})
	}
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "ID:\t%s\nEvent:\t%s\nSubject:\t%s\nSince:\t%s\nError:\t%s\n", plain(d.ID), plain(d.EventType), plain(d.Subject), when(d.FailedAt), plain(d.Error))
	if err := w.Flush(); err != nil {
		return err
	}
	var data bytes.Buffer
	if err := json.Indent(&data, d.Data, "", "  "); err != nil {
		return fmt.Errorf("read what the dead letter says: %w", err)
	}
	_, err := fmt.Fprintln(c.env.Stdout, plainLines(data.String()))
	return err
}

func (c *command) replay() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "replay ID | --all", Short: "Take it in after all; it stays when that fails again", Args: cobra.MaximumNArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			switch {
			case all == (len(args) == 1):
				return usage("Say which dead letter to replay, or --all.")
			case all:
				return c.replayAll(ctx, client)
			}
			d, err := client.Replay(ctx, args[0])
			if err != nil {
				return err
			}
			return c.replayed(d)
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "all that wait, the oldest first")
	return cmd
}

func (c *command) replayed(d api.DeadLetter) error {
	if c.json {
		return c.printJSON(map[string]any{"dead_letter": d})
	}
	_, err := fmt.Fprintf(c.env.Stdout, "Replayed %s (%s)\n", plain(d.ID), plain(d.EventType))
	return err
}

// replayAll goes on after one that fails. One that is gone was settled with another of
// the same deployment.
func (c *command) replayAll(ctx context.Context, client *api.Client) error {
	all, err := client.DeadLetters(ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 && !c.json {
		_, err := fmt.Fprintln(c.env.Stdout, "There are no dead letters.")
		return err
	}
	failed := 0
	for _, d := range all {
		_, err := client.Replay(ctx, d.ID)
		var problem *api.Problem
		switch {
		case err == nil || errors.As(err, &problem) && problem.Status == http.StatusNotFound:
			if err := c.replayed(d); err != nil {
				return err
			}
		case problem == nil || problem.Status != http.StatusUnprocessableEntity:
			return err
		default:
			failed++
			fmt.Fprintf(c.env.Stderr, "%s: %s\n", plain(d.ID), plain(problem.Message))
		}
	}
	if failed > 0 {
		return fail(ExitFailed, "%d of %d dead letters failed again; they stay.", failed, len(all))
	}
	return nil
}

func (c *command) drop() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "drop ID", Short: "Give it up for good; its event stays in the log", Args: cobra.ExactArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			if !yes {
				if err := c.confirmed("Dropping "+args[0]+" leaves the rows without its event", args[0]); err != nil {
					return err
				}
			}
			message, err := client.Drop(ctx, args[0])
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
