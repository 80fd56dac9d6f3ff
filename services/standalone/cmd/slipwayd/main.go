// Command slipwayd is the whole platform in one process. `slipwayd purge` removes a
// data directory with the containers and networks that belong to it; `slipwayd ground`
// runs only NATS and PostgreSQL, for services that are processes of their own;
// `slipwayd add-node ID` makes the NATS key of one more node, and `slipwayd nats-users`
// prints what a NATS server of one's own must know of roles and nodes. `slipwayd certs`
// makes the certificates by which services that are processes of their own know each other.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/slipway-paas/slipway/libs/config"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/services/standalone"
)

// version is set by the build.
var version = "dev"

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run()) }

func run() int {
	if len(os.Args) > 1 && os.Args[1] == "certs" {
		return certs(os.Args[2:], time.Now(), os.Stdout, os.Stderr)
	}
	c := standalone.DefaultConfig()
	do, args := command(os.Args[1:])
	var help *config.Help
	switch err := config.Load("slipwayd", args, os.Environ(), &c); {
	case errors.As(err, &help):
		fmt.Print(help.Text)
		return exitOK
	case errors.Is(err, config.ErrVersion):
		fmt.Println("slipwayd", version)
		return exitOK
	case err != nil:
		fmt.Fprintln(os.Stderr, "slipwayd:", err)
		return exitUsage
	}
	ctx := untilSignal()
	saveMemory(ctx, os.Getenv)
	observer, err := observe.Setup(ctx, "slipwayd", version, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "slipwayd:", err)
		return exitUsage
	}
	err = do(ctx, c, observer)
	bounded, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := observer.Shutdown(bounded); err != nil {
		observer.Log.Warn("last traces could not be sent", "error", err)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "slipwayd:", err)
		return exitFailed
	}
	observer.Log.Info("stopped")
	return exitOK
}

type action func(context.Context, standalone.Config, *observe.Observer) error

// command is what the first argument asks for, and the flags after it.
func command(args []string) (action, []string) {
	if len(args) == 0 {
		return serve, args
	}
	switch args[0] {
	case "purge":
		return func(ctx context.Context, c standalone.Config, o *observe.Observer) error {
			return standalone.Purge(ctx, c, o.Log)
		}, args[1:]
	case "ground":
		return func(ctx context.Context, c standalone.Config, o *observe.Observer) error {
			return standalone.Ground(ctx, c, standalone.Options{Version: version, Observer: o})
		}, args[1:]
	case "nats-users":
		return func(_ context.Context, c standalone.Config, _ *observe.Observer) error {
			users, err := standalone.NATSUsers(c)
			if err == nil {
				_, err = fmt.Print(users)
			}
			return err
		}, args[1:]
	case "add-node":
		return addNode(args[1:])
	default:
		return serve, args
	}
}

// addNode takes the node's id before the flags.
func addNode(args []string) (action, []string) {
	id := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		id, args = args[0], args[1:]
	}
	return func(_ context.Context, c standalone.Config, _ *observe.Observer) error {
		if id == "" {
			return errors.New("which node? say: slipwayd add-node ID [--data-dir DIR]")
		}
		file, err := standalone.AddNode(c, id)
		if err == nil {
			_, err = fmt.Println(file)
		}
		return err
	}, args
}

func serve(ctx context.Context, c standalone.Config, observer *observe.Observer) error {
	own, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the edge's program: %w", err)
	}
	return standalone.Run(ctx, c, standalone.Options{
		Version: version, EdgeProgram: filepath.Join(filepath.Dir(own), "slipway-edge"), Observer: observer,
	})
}

// untilSignal ends with the first signal: SIGINT (Ctrl-C) stops the apps too,
// SIGTERM leaves them running for the next daemon. A second one ends the process.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		cause := context.Canceled
		if <-signals == syscall.SIGINT {
			cause = standalone.ErrStopApps
		}
		cancel(cause)
		<-signals
		fmt.Fprintln(os.Stderr, "slipwayd: second signal, ending at once")
		os.Exit(exitFailed)
	}()
	return ctx
}
