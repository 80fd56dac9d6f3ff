package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

func (c *command) eventCredentials() *cobra.Command {
	cmd := &cobra.Command{
		Use: "events:credentials", Short: "Let NATS clients read your organization's events", Args: cobra.NoArgs,
		Long: "Credentials by which plain NATS clients read the organization's events, live and past, and nothing else.\n" +
			"It needs the role admin in the organization.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.createEventCredential(), c.listEventCredentials(), c.revokeEventCredential())
	return cmd
}

func (c *command) createEventCredential() *cobra.Command {
	var after uint64
	var life time.Duration
	var file string
	cmd := &cobra.Command{Use: "create NAME", Short: "Make one; its secret is shown this once", Args: cobra.ExactArgs(1)}
	cmd.Flags().Uint64Var(&after, "after", 0, "begin to read the past after this sequence")
	cmd.Flags().DurationVar(&life, "expires-in", 0, "how long it lives, such as 720h; for ever when 0")
	cmd.Flags().StringVar(&file, "seed-file", "", "write the secret to this new file, readable by you alone, instead of showing it")
	cmd.RunE = c.run(func(cmd *cobra.Command, args []string) error {
		if life < 0 {
			return usage("--expires-in must not be negative.")
		}
		client, err := c.client(cmd.Context())
		if err != nil {
			return err
		}
		seedFile, err := newSeedFile(file)
		if err != nil {
			return err
		}
		var expires *time.Time
		if life > 0 {
			at := time.Now().Add(life)
			expires = &at
		}
		made, err := client.CreateEventCredential(cmd.Context(), args[0], after, expires)
		if err != nil {
			seedFile.discard()
			return err
		}
		if err := seedFile.keep(made.Seed); err != nil {
			return err
		}
		return c.showNewEventCredential(made, file)
	})
	return cmd
}

func (c *command) showNewEventCredential(made api.NewEventCredential, file string) error {
	seed := made.Seed
	if file != "" {
		seed, made.Seed = "in "+file, ""
	}
	if c.json {
		return c.printJSON(made)
	}
	address := plain(made.URL)
	if address == "" {
		address = "(ask who runs the platform)"
	}
	of := made.EventCredential
	return table(c.env.Stdout, "CREDENTIAL\t"+of.ID, func(line func(...any)) {
		line("server", address)
		line("seed", seed)
		line("live", plain(of.Subject))
		line("past", "stream "+plain(of.Stream)+", consumer "+plain(of.Consumer))
	})
}

func (c *command) listEventCredentials() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List those that nobody has revoked", Args: cobra.NoArgs,
		RunE: c.calling(func(ctx context.Context, client *api.Client, _ []string) error {
			all, err := client.EventCredentials(ctx)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"event_credentials": all})
			}
			return table(c.env.Stdout, "ID\tNAME\tCREATED\tEXPIRES\tPUBLIC KEY", func(line func(...any)) {
				for _, of := range all {
					expires := "never"
					if of.ExpiresAt != nil {
						expires = of.ExpiresAt.Format(time.DateTime)
					}
					line(of.ID, plain(of.Name), of.CreatedAt.Format(time.DateTime), expires, of.PublicKey)
				}
			})
		}),
	}
}

func (c *command) revokeEventCredential() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End one and its connections, at once", Args: cobra.ExactArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			if err := client.RevokeEventCredential(ctx, args[0]); err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"message": "Revoked", "id": args[0]})
			}
			_, err := fmt.Fprintln(c.env.Stdout, "Revoked.")
			return err
		}),
	}
}

// seedFile is made before the credential, so that no secret is lost for want of a place;
// the zero one is none.
type seedFile struct{ file *os.File }

func newSeedFile(path string) (seedFile, error) {
	if path == "" {
		return seedFile{}, nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return seedFile{}, usage("--seed-file: %w.", err)
	}
	return seedFile{file}, nil
}

func (s seedFile) discard() {
	if s.file != nil {
		_ = s.file.Close() // nothing was written
		_ = os.Remove(s.file.Name())
	}
}

func (s seedFile) keep(seed string) error {
	if s.file == nil {
		return nil
	}
	_, err := s.file.WriteString(strings.TrimSpace(seed) + "\n")
	if closed := s.file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write the seed to %s: %w; revoke the credential, and make another", s.file.Name(), err)
	}
	return nil
}
