// Command slipway is Slipway's command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/slipway-paas/slipway/services/cli"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	info, err := os.Stdin.Stat()
	// Without one slipway can still be told by flag or environment.
	settings, _ := os.UserConfigDir()
	os.Exit(cli.Run(ctx, os.Args[1:], cli.Env{
		Version: version, Getenv: os.Getenv, ConfigDir: settings, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Interactive: err == nil && info.Mode()&os.ModeCharDevice != 0,
	}))
}
