package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

type deployFlags struct {
	subdomain, tier, domain string
	port                    int
	env                     []string
	wait                    bool
	timeout                 time.Duration
}

func (c *command) deploy() *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use:   "deploy IMAGE --subdomain NAME",
		Short: "Deploy a container image",
		Example: `  slipway deploy docker.io/library/nginx:1.27 --subdomain hello --port 80
  slipway deploy ghcr.io/me/app:v2 --subdomain app --tier buddo-pro --env LOG=debug --json`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&f.subdomain, "subdomain", "", "name under the platform's domain (needed)")
	cmd.Flags().StringVar(&f.tier, "tier", "buddo-starter", "tier: price and limits")
	cmd.Flags().IntVar(&f.port, "port", 0, "port that the app listens on (the API's default: 3000)")
	cmd.Flags().StringArrayVarP(&f.env, "env", "e", nil, "environment variable KEY=VALUE; can be repeated")
	cmd.Flags().StringVar(&f.domain, "custom-domain", "", "own domain, on tiers that allow it")
	cmd.Flags().BoolVar(&f.wait, "wait", true, "wait until it runs or has failed")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 15*time.Minute, "how long to wait; the deployment goes on without us")
	if err := cmd.MarkFlagRequired("subdomain"); err != nil {
		panic(err) // the flag is made above
	}
	cmd.RunE = c.calling(func(ctx context.Context, client *api.Client, args []string) error {
		req, err := f.request(args[0], cmd.Flags().Changed("port"))
		if err != nil {
			return err
		}
		d, err := client.Create(ctx, req)
		if err != nil {
			return err
		}
		if f.wait {
			if d, err = c.await(ctx, client, d, f.timeout); err != nil {
				return err
			}
		}
		return c.deployed(d)
	})
	return cmd
}

func (f *deployFlags) request(image string, hasPort bool) (api.CreateRequest, error) {
	req := api.CreateRequest{Image: image, Subdomain: f.subdomain, Tier: f.tier, CustomDomain: f.domain}
	if hasPort {
		req.Port = &f.port
	}
	for _, pair := range f.env {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return req, usage("--env %q is no KEY=VALUE.", pair)
		}
		if req.EnvVars == nil {
			req.EnvVars = map[string]string{}
		}
		req.EnvVars[name] = value
	}
	return req, nil
}

func (c *command) deployed(d api.Deployment) error {
	if c.json {
		return c.printJSON(map[string]any{"deployment": d, "address": c.address(d)})
	}
	if d.Status == "running" {
		_, err := fmt.Fprintf(c.env.Stdout, "%s is live at %s\n", d.Subdomain, c.address(d))
		return err
	}
	_, err := fmt.Fprintf(c.env.Stdout, "%s is %s; follow it with: slipway events --follow %s\n", d.Subdomain, d.Status, d.ID)
	return err
}

// await shows progress until the deployment runs, and fails with ExitDeployFailed
// when it never will.
func (c *command) await(ctx context.Context, client *api.Client, d api.Deployment, timeout time.Duration) (api.Deployment, error) {
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	progress := c.env.Stderr
	if c.json {
		progress = io.Discard
	}
	running, failed := false, false
	begun, said := time.Now(), ""
	err := client.Follow(waiting, d.ID, 0, func(e api.Event) error {
		// What is tried again and again is said once.
		if line := describe(e); line != said {
			said = line
			fmt.Fprintf(progress, "%6.1fs  %s\n", time.Since(begun).Seconds(), plain(line))
		}
		switch e.Type {
		case "DeploymentRunning":
			running = true
			return api.ErrStop
		case "ReleaseFailed":
			lastLines(progress, e)
			failed = true
			return api.ErrStop
		case "DeploymentStopped", "DestroyRequested", "DeploymentDestroyed":
			failed = true
			return api.ErrStop
		}
		return nil
	})
	switch {
	case err != nil:
		return d, err
	case ctx.Err() != nil:
		return d, fail(ExitFailed, "Interrupted; the deployment goes on: slipway status %s", d.ID)
	case !running && !failed:
		return d, fail(ExitFailed, "It did not run within %s and goes on without us: slipway status %s", timeout, d.ID)
	}
	now, err := client.Get(ctx, d.ID)
	if err != nil {
		return d, err
	}
	if running {
		return now, nil
	}
	reason := "it was stopped or destroyed meanwhile."
	if now.StatusReason != nil {
		reason = *now.StatusReason
	}
	if c.json {
		if err := c.deployed(now); err != nil {
			return now, err
		}
	}
	return now, fail(ExitDeployFailed, "The deployment of %s failed: %s See slipway logs %s", now.Subdomain, reason, now.ID)
}

func lastLines(w io.Writer, e api.Event) {
	lines, _ := e.Data["last_lines"].([]any)
	if len(lines) == 0 {
		return
	}
	fmt.Fprintln(w, "         The container's last lines:")
	for _, line := range lines {
		fmt.Fprintf(w, "         | %s\n", plain(fmt.Sprint(line)))
	}
}

// describe says an event in a line for people; events it does not know by their type.
func describe(e api.Event) string {
	d := e.Data
	switch e.Type {
	case "DeploymentRequested":
		return "Asked for " + text(d, "subdomain")
	case "PlacementDeferred":
		return "Waiting for room: " + text(d, "reason")
	case "DeploymentScheduled":
		return "Given to a node"
	case "ImagePulled":
		return "Pulled " + text(d, "image") + " in " + rounded(text(d, "took"))
	case "ImagePullFailed":
		return "Pull failed: " + text(d, "reason")
	case "ContainerStarted":
		if n := text(d, "attempt"); n != "1" && n != "0" {
			return "Started the container again (attempt " + n + ")"
		}
		return "Started the container"
	case "ContainerStartFailed":
		return "The container could not be started: " + text(d, "reason")
	case "ContainerExited":
		if d["oom_killed"] == true {
			return "The container ran out of memory and was killed"
		}
		return "The container exited with code " + text(d, "exit_code")
	case "ContainerRemoved":
		return "Removed a container"
	case "InstanceHealthy":
		return "It answers"
	case "InstanceUnhealthy":
		return "It does not answer: " + text(d, "reason")
	case "RouteBound":
		return "The edge sends it traffic"
	case "RouteRemoved":
		return "The edge sends it nothing any more"
	case "DeploymentRunning":
		return "Running"
	case "ReleaseFailed":
		return "Failed: " + text(d, "reason")
	case "RestartRequested":
		return "Restart asked for"
	case "RollbackRequested":
		return fmt.Sprintf("Rollback to release %v asked for", d["from_release_number"])
	case "ScaleRequested":
		return fmt.Sprintf("Scale to %v asked for", d["count"])
	case "DeploymentScaled":
		return fmt.Sprintf("Scaled to %v", d["count"])
	case "ScaleFailed":
		return "Scale failed: " + text(d, "reason")
	case "StopRequested":
		return "Stop asked for"
	case "DeploymentStopped":
		return strings.TrimSpace("Stopped " + text(d, "reason"))
	case "DestroyRequested":
		return "Destroy asked for"
	case "DeploymentDestroyed":
		return strings.TrimSpace("Destroyed " + text(d, "reason"))
	}
	return e.Type
}

// rounded shows a duration to the millisecond.
func rounded(text string) string {
	d, err := time.ParseDuration(text)
	if err != nil {
		return text
	}
	return d.Round(time.Millisecond).String()
}
