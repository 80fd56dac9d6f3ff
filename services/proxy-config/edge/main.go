package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/slipway-paas/slipway/libs/config"
)

// Main is the command without the process: it returns the exit code. 0 for a
// clean end, 1 when the edge failed, 2 when it was told something wrong.
func Main(ctx context.Context, version string, args, environ []string, stdout, stderr io.Writer) int {
	const name = "slipway-edge"
	cfg := Config{LogLevel: logLevel(environ)}
	var help *config.Help
	switch err := config.Load(name, args, environ, &cfg); {
	case errors.As(err, &help):
		fmt.Fprint(stdout, help.Text)
		return 0
	case errors.Is(err, config.ErrVersion):
		fmt.Fprintln(stdout, name, version)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 2
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		fmt.Fprintf(stderr, "%s: --log-level: %v\n", name, err)
		return 2
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level})).With("service", "edge")
	if err := Run(ctx, cfg, log); err != nil {
		log.Error("stopped", "error", err)
		return 1
	}
	log.Info("stopped")
	return 0
}
