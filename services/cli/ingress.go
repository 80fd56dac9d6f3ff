package cli

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/services/cli/api"
)

// routerLog shows the requests as the edges served them.
func (c *command) routerLog(ctx context.Context, client *api.Client, name string, lines int, follow bool) error {
	return client.AccessLog(ctx, name, lines, follow, c.json, func(line string) error {
		if !c.json {
			line = plain(line)
		}
		_, err := fmt.Fprintln(c.env.Stdout, line)
		return err
	})
}

func (c *command) metrics() *cobra.Command {
	var window string
	cmd := &cobra.Command{
		Use: "metrics ID|SUBDOMAIN", Short: "Show how many requests came, how fast they were answered, and how many failed",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			m, err := client.RequestMetrics(ctx, args[0], window)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(m)
			}
			w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "Window:\tthe last %s\n", plain(m.Window))
			fmt.Fprintf(w, "Requests:\t%d (%.2f a second)\n", m.Requests, m.Rate)
			fmt.Fprintf(w, "Errors:\t%d of clients (4xx), %d of the app (5xx, %.2f %%)\n", m.Errors.Client, m.Errors.Server, 100*m.ErrorRate)
			fmt.Fprintf(w, "Time:\tp50 %s, p90 %s, p99 %s\n", millis(m.P50), millis(m.P90), millis(m.P99))
			fmt.Fprintf(w, "Bodies:\t%s in, %s out\n", size(m.BytesIn), size(m.BytesOut))
			return w.Flush()
		}),
	}
	cmd.Flags().StringVar(&window, "window", "5m", "how far to look back, 10s to 1h")
	return cmd
}

func (c *command) ingress() *cobra.Command {
	return &cobra.Command{
		Use: "ingress ID|SUBDOMAIN", Short: "Show how requests for the app are treated", Args: cobra.ExactArgs(1), ValidArgsFunction: c.complete,
		RunE: c.calling(func(ctx context.Context, client *api.Client, args []string) error {
			i, err := client.Ingress(ctx, args[0])
			if err != nil {
				return err
			}
			return c.ingressShown(i)
		}),
	}
}

func (c *command) ingressSet() *cobra.Command {
	return &cobra.Command{
		Use: "ingress:set ID|SUBDOMAIN NAME=VALUE...", Short: "Change how requests for the app are treated",
		Long: `Change how requests for the app are treated. Nothing restarts, and no connection is cut.

  max-body=10M      largest body of a request (k, M or G), or default
  timeout=60s       how long the app may take to begin its answer, or default
  sticky=on         a client stays with the instance that answered it first
  drain=30s         how long WebSockets of an instance that goes stay open, or default
  compression=off   answers pass as the app sends them
  maintenance=on    every request is answered 503 with a page that says so`,
		Args: cobra.MinimumNArgs(2), ValidArgsFunction: c.complete,
		RunE: c.run(func(cmd *cobra.Command, args []string) error {
			change, err := ingressChange(args[1:])
			if err != nil {
				return err
			}
			return c.changeIngress(cmd.Context(), args[0], change)
		}),
	}
}

func (c *command) maintenance(on bool) *cobra.Command {
	word, short := "off", "Let the app serve requests again"
	if on {
		word, short = "on", "Answer every request for the app with a page that says it is under maintenance"
	}
	return &cobra.Command{
		Use: "maintenance:" + word + " ID|SUBDOMAIN", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: c.complete,
		RunE: c.run(func(cmd *cobra.Command, args []string) error {
			return c.changeIngress(cmd.Context(), args[0], api.IngressChange{Maintenance: &on})
		}),
	}
}

func (c *command) changeIngress(ctx context.Context, name string, change api.IngressChange) error {
	client, err := c.client(ctx)
	if err != nil {
		return err
	}
	i, err := client.ConfigureIngress(ctx, name, change)
	if err != nil {
		return err
	}
	return c.ingressShown(i)
}

func (c *command) ingressShown(i api.Ingress) error {
	if c.json {
		return c.printJSON(map[string]any{"ingress": i})
	}
	seconds := func(n uint32) string {
		if n == 0 {
			return "default"
		}
		return (time.Duration(n) * time.Second).String()
	}
	body := "default"
	if i.MaxRequestBytes > 0 {
		body = size(float64(i.MaxRequestBytes))
	}
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "maintenance:\t%s\n", switched(i.Maintenance))
	fmt.Fprintf(w, "max-body:\t%s\n", body)
	fmt.Fprintf(w, "timeout:\t%s\n", seconds(i.RequestTimeoutSeconds))
	fmt.Fprintf(w, "sticky:\t%s\n", switched(i.Sticky))
	fmt.Fprintf(w, "drain:\t%s\n", seconds(i.DrainSeconds))
	fmt.Fprintf(w, "compression:\t%s\n", switched(i.Compression))
	return w.Flush()
}

func ingressChange(settings []string) (api.IngressChange, error) {
	var change api.IngressChange
	for _, setting := range settings {
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return change, usage("%q is no setting; write it as NAME=VALUE, like max-body=10M.", setting)
		}
		var err error
		switch name {
		case "maintenance":
			change.Maintenance, err = onOrOff(value)
		case "sticky":
			change.Sticky, err = onOrOff(value)
		case "compression":
			change.Compression, err = onOrOff(value)
		case "max-body":
			change.MaxRequestBytes, err = bytesOf(value)
		case "timeout":
			change.RequestTimeoutSeconds, err = secondsOf(value)
		case "drain":
			change.DrainSeconds, err = secondsOf(value)
		default:
			return change, usage("There is no setting %q; there are maintenance, max-body, timeout, sticky, drain and compression.", name)
		}
		if err != nil {
			return change, usage("%s: %w.", name, err)
		}
	}
	return change, nil
}

func onOrOff(value string) (*bool, error) {
	switch value {
	case "on":
		return new(true), nil
	case "off":
		return new(false), nil
	}
	return nil, fmt.Errorf("%q must be on or off", value)
}

// bytesOf reads a size, in units of 1024.
func bytesOf(value string) (*int64, error) {
	if value == "default" {
		return new(int64(0)), nil
	}
	number, unit := value, int64(1)
	for suffix, of := range map[string]int64{"k": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
		if cut, ok := strings.CutSuffix(value, suffix); ok {
			number, unit = cut, of
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64/unit {
		return nil, fmt.Errorf("%q must be a size like 512k, 10M or 1G, or default", value)
	}
	n *= unit
	return &n, nil
}

func secondsOf(value string) (*int64, error) {
	if value == "default" {
		return new(int64(0)), nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < time.Second || d%time.Second != 0 {
		return nil, fmt.Errorf("%q must be whole seconds, like 60s or 2m, or default", value)
	}
	return new(int64(d / time.Second)), nil
}

func switched(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func millis(ms float64) string {
	return time.Duration(ms * float64(time.Millisecond)).Round(100 * time.Microsecond).String()
}

func size(bytes float64) string {
	for _, unit := range []struct {
		name string
		of   float64
	}{{"G", 1 << 30}, {"M", 1 << 20}, {"k", 1 << 10}} {
		if bytes >= unit.of {
			return strconv.FormatFloat(math.Round(10*bytes/unit.of)/10, 'f', -1, 64) + unit.name
		}
	}
	return strconv.FormatFloat(bytes, 'f', -1, 64)
}
