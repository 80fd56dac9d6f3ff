// Command slipway-edge serves apps: Caddy with a live route table.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/slipway-paas/slipway/services/proxy-config/edge"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// After the first signal the second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(edge.Main(ctx, version, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
