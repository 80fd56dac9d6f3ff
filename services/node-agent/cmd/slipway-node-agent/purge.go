package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/slipway-paas/slipway/libs/config"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/services/node-agent/node"
)

const purgeTime = 5 * time.Minute

// purge takes the agent's own flags and returns the exit code.
func purge(args []string) int {
	var c settings
	var help *config.Help
	switch err := config.Load(name+" purge", args, os.Environ(), &c); {
	case errors.As(err, &help):
		fmt.Print(help.Text)
		return service.ExitOK
	case errors.Is(err, config.ErrVersion):
		fmt.Println(name, version)
		return service.ExitOK
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return service.ExitUsage
	}
	ctx, cancel := context.WithTimeout(context.Background(), purgeTime)
	defer cancel()
	if err := node.Purge(ctx, c.Config, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintf(os.Stderr, "%s purge: %v\n", name, err)
		return service.ExitFailed
	}
	return service.ExitOK
}
