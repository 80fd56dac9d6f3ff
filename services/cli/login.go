package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/slipway-paas/slipway/services/cli/api"
)

// usualScopes are what the command line asks for when it is told nothing.
func usualScopes() []string {
	return []string{"deploy:manage", "apps:write", "billing:read", "events:read"}
}

func (c *command) login() *cobra.Command {
	var scopes []string
	var admin bool
	cmd := &cobra.Command{
		Use: "login [API-URL]", Short: "Sign in with a browser, here or elsewhere", Args: cobra.MaximumNArgs(1),
		Long: "Shows an address and a code; whoever opens the address signs in and lets this machine act for them.\n" +
			"The tokens are kept in the credentials file, which only its owner can read, and refreshed by themselves.",
	}
	cmd.Flags().StringSliceVar(&scopes, "scope", usualScopes(), "what to ask for")
	cmd.Flags().BoolVar(&admin, "admin", false, "ask for running the platform, too")
	cmd.RunE = c.run(func(cmd *cobra.Command, args []string) error {
		c.makes = true
		known, err := c.findCredentials()
		if err != nil {
			return err
		}
		if len(args) > 0 {
			known.APIURL, known.AppURL = strings.TrimRight(args[0], "/"), ""
		}
		if admin && !slices.Contains(scopes, "admin") {
			scopes = append(scopes, "admin")
		}
		return c.signIn(cmd.Context(), known, scopes)
	})
	return cmd
}

func (c *command) signIn(ctx context.Context, known credentials, scopes []string) error {
	path := c.ownFile()
	if path == "" {
		return usage("There is no place for credentials: HOME is not set. Name a file with --credentials.")
	}
	if _, err := api.New(known.APIURL, "", ""); err != nil {
		return usage("%w. Name it, as in slipway login https://api.example.com, or set SLIPWAY_API_URL.", err)
	}
	config := api.OAuth(known.APIURL, scopes...)
	asked, err := config.DeviceAuth(ctx)
	if err != nil {
		return signInFailure(known.APIURL, err)
	}
	fmt.Fprintf(c.env.Stderr, "Open %s\nand check that it shows the code %s (or open %s and type it).\nWaiting …\n",
		plain(asked.VerificationURIComplete), plain(asked.UserCode), plain(asked.VerificationURI))
	got, err := config.DeviceAccessToken(ctx, asked)
	if err != nil {
		return signInFailure(known.APIURL, err)
	}
	made := credentials{APIURL: known.APIURL, AppURL: known.AppURL, AccessToken: got.AccessToken, RefreshToken: got.RefreshToken, ExpiresAt: &got.Expiry}
	if err := writeCredentials(path, made); err != nil {
		return err
	}
	client, err := api.New(made.APIURL, made.AccessToken, c.agent())
	if err != nil {
		return err
	}
	who, err := client.DescribeToken(ctx)
	if err != nil {
		return err
	}
	c.warnOfOthers(path)
	if c.json {
		return c.printJSON(map[string]any{"api_url": made.APIURL, "credentials": path, "operator_id": who.OperatorID, "org_id": who.OrgID, "scopes": who.Scopes})
	}
	_, err = fmt.Fprintf(c.env.Stdout, "Signed in for organization %s. The credentials are in %s.\n", plain(who.OrgID), path)
	return err
}

// warnOfOthers tells what goes before the file that was just written.
func (c *command) warnOfOthers(path string) {
	local := filepath.Join(".slipway", "credentials.json")
	switch _, err := os.Stat(local); {
	case c.env.Getenv("SLIPWAY_TOKEN") != "":
		fmt.Fprintln(c.env.Stderr, "SLIPWAY_TOKEN is set and goes before these credentials; unset it to use them.")
	case err == nil && c.namedFile() == "":
		fmt.Fprintf(c.env.Stderr, "%s is in this directory and goes before these credentials; use --credentials %s here.\n", local, path)
	}
}

// signInFailure says what the token endpoint's refusals mean.
func signInFailure(apiURL string, err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		code, message := refused.ErrorCode, refused.ErrorDescription
		if code == "" {
			var body struct {
				Code    string `json:"error"`
				Message string `json:"error_description"`
			}
			if json.Unmarshal(refused.Body, &body) == nil {
				code, message = body.Code, body.Message
			}
		}
		switch code {
		case "access_denied":
			return fail(ExitUnauthorized, "It was refused on the page; nothing was changed.")
		case "expired_token":
			return fail(ExitUnauthorized, "Nobody has opened the page in time; run slipway login again.")
		case "invalid_grant":
			return fail(ExitUnauthorized, "You are signed out: %s Run slipway login.", plain(message))
		case "":
			return fail(ExitFailed, "%s does not sign anybody in: it answers %s. Is it a Slipway API?", apiURL, refused.Response.Status)
		}
		return fail(ExitUnauthorized, "Signing in failed: %s (%s)", plain(message), plain(code))
	}
	var network *url.Error
	if errors.As(err, &network) && !errors.Is(err, context.Canceled) {
		return &api.Unreachable{URL: apiURL, Cause: network.Err}
	}
	return fmt.Errorf("sign in: %w", err)
}

func (c *command) logout() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Sign out: end this machine's tokens and forget them", Args: cobra.NoArgs,
		RunE: c.run(func(cmd *cobra.Command, _ []string) error {
			known, err := c.findCredentials()
			if err != nil {
				return err
			}
			if known.RefreshToken == "" || known.path == "" {
				return fail(ExitFailed, "Nobody has signed in here with slipway login; there is nothing to end.")
			}
			kept, err := readCredentials(known.path)
			if err != nil {
				return err
			}
			client, err := api.New(kept.APIURL, kept.AccessToken, c.agent())
			if err != nil {
				return err
			}
			if err := client.Revoke(cmd.Context(), kept.RefreshToken); err != nil {
				return err
			}
			if err := os.Remove(known.path); err != nil {
				return fmt.Errorf("the tokens have ended, but their file is still there: %w", err)
			}
			os.Remove(known.path + ".lock")
			if c.json {
				return c.printJSON(map[string]string{"message": "Signed out"})
			}
			_, err = fmt.Fprintln(c.env.Stdout, "Signed out.")
			return err
		}),
	}
}

func (c *command) whoami() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Say who you are, for which organization, and what you may", Args: cobra.NoArgs,
		RunE: c.calling(func(ctx context.Context, client *api.Client, _ []string) error {
			who, err := client.DescribeToken(ctx)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(who)
			}
			_, err = fmt.Fprintf(c.env.Stdout, "operator      %s\norganization  %s (%s)\napp           %s\nscopes        %s\n",
				plain(who.OperatorID), plain(who.OrgID), plain(who.Role), plain(who.AppID), plain(strings.Join(who.Scopes, " ")))
			return err
		}),
	}
}

func (c *command) tokens() *cobra.Command {
	list := func(ctx context.Context, client *api.Client, _ []string) error {
		grants, err := client.Grants(ctx)
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(map[string]any{"grants": grants})
		}
		return table(c.env.Stdout, "ID\tAPP\tORGANIZATION\tSCOPES\tLAST USED\tENDS", func(line func(...any)) {
			for _, g := range grants {
				line(g.ID, plain(g.AppName), plain(g.OrgID), plain(strings.Join(g.Scopes, " ")), g.LastUsedAt.Format(time.DateTime), g.ExpiresAt.Format(time.DateOnly))
			}
		})
	}
	cmd := &cobra.Command{Use: "tokens", Short: "List what you have let act for you", Args: cobra.NoArgs, RunE: c.calling(list)}
	cmd.AddCommand(&cobra.Command{
		Use: "revoke ID", Short: "End every token of one of them", Args: cobra.ExactArgs(1),
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			if err := client.RevokeGrant(ctx, args[0]); err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"message": "Revoked", "id": args[0]})
			}
			_, err := fmt.Fprintln(c.env.Stdout, "Revoked.")
			return err
		}),
	})
	return cmd
}

func (c *command) orgs() *cobra.Command {
	return &cobra.Command{
		Use: "orgs", Short: "List your organizations; * marks the one that you act for", Args: cobra.NoArgs,
		RunE: c.calling(func(ctx context.Context, client *api.Client, _ []string) error {
			who, err := client.DescribeToken(ctx)
			if err != nil {
				return err
			}
			all, err := client.Orgs(ctx)
			var refused *api.Problem
			if errors.As(err, &refused) && refused.Status == http.StatusForbidden {
				// What acts for one organization may know of that one alone.
				all, err = []api.Org{{ID: who.OrgID, Name: who.OrgID, Role: who.Role}}, nil
			}
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"orgs": all, "current": who.OrgID})
			}
			return table(c.env.Stdout, "\tID\tNAME\tROLE", func(line func(...any)) {
				for _, o := range all {
					mark := ""
					if o.ID == who.OrgID {
						mark = "*"
					}
					line(mark, plain(o.ID), plain(o.Name), plain(o.Role))
				}
			})
		}),
	}
}

// table prints lines under a heading, in columns.
func table(w io.Writer, heading string, lines func(line func(...any))) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, heading)
	lines(func(cells ...any) {
		fmt.Fprintf(out, strings.Repeat("\t%v", len(cells))[1:]+"\n", cells...)
	})
	return out.Flush()
}
