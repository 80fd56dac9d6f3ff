// Package cli is the command line slipway. It speaks only to the gateway, except for
// backups, which are made where the data is.
package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

// Env is the world that a command line runs in.
type Env struct {
	Version string
	Getenv  func(string) string
	// ConfigDir is the directory for a user's settings; ~/.config when empty.
	ConfigDir string
	Stdin     io.Reader
	// Interactive says whether somebody can answer questions on Stdin.
	Interactive    bool
	Stdout, Stderr io.Writer
}

// Run runs one command line until it is done or ctx ends and returns the exit code.
func Run(ctx context.Context, args []string, env Env) int {
	c := &command{env: env}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	refuseOtherShells(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	if !c.begun {
		// cobra refused the command line before any of ours ran.
		err = usage("%w. See slipway --help.", err)
		// It may stand behind what was refused.
		c.json = c.json || slices.Contains(args, "--json")
	}
	explain(env.Stderr, err, c.json)
	return exitCode(err)
}

// command is one run of slipway.
type command struct {
	env   Env
	json  bool
	file  string
	begun bool
	// makes says that the command makes the credentials, which need not be there yet.
	makes bool
	creds credentials
}

const about = `Slipway takes a container image to a live address.

It is told where the API is and who you are by SLIPWAY_API_URL and SLIPWAY_TOKEN, or
by a credentials file: --credentials, SLIPWAY_CREDENTIALS, ./.slipway/credentials.json
or ~/.config/slipway/credentials.json, the first that there is. slipway login makes the
last one, or the one that is named.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not authorized, 4 not found,
5 the deployment failed.`

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use: "slipway", Short: "Container images to live addresses", Long: about,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().BoolVar(&c.json, "json", false, "answer in JSON")
	root.PersistentFlags().StringVar(&c.file, "credentials", "", "credentials file")
	root.AddCommand(c.version(), c.deploy(), c.status(), c.logs(), c.events(), c.metrics(), c.ingress(), c.ingressSet(), c.maintenance(true), c.maintenance(false), c.destroy(), c.ps(), c.scale(), c.releases(), c.rollback(), c.admin(),
		c.login(), c.logout(), c.whoami(), c.tokens(), c.orgs(), c.eventCredentials())
	root.AddCommand(c.webhooks()...)
	root.AddCommand(c.domains()...)
	return root
}

// refuseOtherShells makes cobra's own completion command say that it does not know a
// shell, where it would print its help and succeed. root must know its output already.
func refuseOtherShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, completion := range root.Commands() {
		if completion.Name() != "completion" {
			continue
		}
		var shells []string
		for _, shell := range completion.Commands() {
			shells = append(shells, shell.Name())
		}
		completion.Args = func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return fmt.Errorf("there is no completion for the shell %q, only for %s", args[0], strings.Join(shells, ", "))
		}
		completion.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
}

// run makes a command's function: it notes that the command line was fine.
func (c *command) run(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c.begun = true
		return f(cmd, args)
	}
}

// calling makes a command's function that calls the API.
func (c *command) calling(f func(ctx context.Context, client *api.Client, args []string) error) func(*cobra.Command, []string) error {
	return c.run(func(cmd *cobra.Command, args []string) error {
		client, err := c.client(cmd.Context())
		if err != nil {
			return err
		}
		return f(cmd.Context(), client, args)
	})
}

func (c *command) agent() string { return "slipway/" + c.env.Version }

func (c *command) client(ctx context.Context) (*api.Client, error) {
	var err error
	if c.creds, err = c.findCredentials(); err != nil {
		return nil, err
	}
	if c.creds.AccessToken == "" {
		return nil, fail(ExitUnauthorized, "Nobody has signed in here. Run slipway login, or set SLIPWAY_TOKEN, or name a credentials file with --credentials; slipwayd writes one to credentials.json in its data directory.")
	}
	if c.creds, err = fresh(ctx, c.creds, time.Now()); err != nil {
		return nil, err
	}
	client, err := api.New(c.creds.APIURL, c.creds.AccessToken, c.agent())
	if err != nil {
		return nil, usage("%w. Set SLIPWAY_API_URL.", err)
	}
	return client, nil
}

func (c *command) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: c.run(func(*cobra.Command, []string) error {
			if c.json {
				return c.printJSON(map[string]string{"version": c.env.Version})
			}
			_, err := fmt.Fprintln(c.env.Stdout, "slipway", c.env.Version)
			return err
		}),
	}
}

func (c *command) printJSON(v any) error {
	encoder := json.NewEncoder(c.env.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// find turns an id or a subdomain into an id. Of deployments with one subdomain it
// takes the one that is not destroyed, or else, unless live is asked for, the newest.
func find(ctx context.Context, client *api.Client, name string, live bool) (id string, err error) {
	if uuid.Validate(name) == nil {
		return name, nil
	}
	all, err := client.List(ctx)
	if err != nil {
		return "", err
	}
	for _, d := range all {
		switch {
		case d.Subdomain != name:
		case d.Status != "destroyed":
			return d.ID, nil
		case id == "" && !live:
			id = d.ID
		}
	}
	if id == "" {
		return "", fail(ExitNotFound, "There is no deployment %q; slipway status lists yours.", name)
	}
	return id, nil
}

// address is where the deployment answers; its subdomain when that is not known.
func (c *command) address(d api.Deployment) string {
	if c.creds.AppURL == "" {
		return d.Subdomain
	}
	return strings.ReplaceAll(c.creds.AppURL, "{subdomain}", d.Subdomain)
}

// complete offers the subdomains of what there is.
func (c *command) complete(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := c.client(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := client.List(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, d := range all {
		if d.Status != "destroyed" {
			names = append(names, d.Subdomain+"\t"+d.Status)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// text is a field of an event's data, empty when it is not there.
func text(data map[string]any, field string) string {
	switch v := data[field].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}
