// Command slipway-dev runs the platform for its developers: every service as a
// process of its own, in the foreground, with data that stays.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/slipway-paas/slipway/e2e/stack"
)

func main() {
	dir := flag.String("dir", ".slipway-dev", "directory for data and logs")
	bin := flag.String("bin", "", "directory with the platform's binaries (default: the repository's bin)")
	verbose := flag.Bool("verbose", false, "print what every process says; its log file has it anyway")
	remove := flag.Bool("remove", false, "remove the directory with the containers and networks that belong to it, and stop")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	act := func() error { return run(ctx, *dir, *bin, *verbose) }
	if *remove {
		act = func() error { return stack.Remove(ctx, *bin, *dir) }
	}
	if err := act(); err != nil {
		fmt.Fprintln(os.Stderr, "slipway-dev:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, bin string, verbose bool) error {
	options := stack.Options{
		Dir: dir, Bin: bin,
		Ports: &stack.Ports{API: 8080, EdgeHTTP: 8000, EdgeHTTPS: 8443, Registry: 5055, NATS: 4222, Ops: 9090, Subscriptions: 4223},
	}
	if verbose {
		options.Screen = os.Stderr
	}
	s, err := stack.Processes(ctx, options)
	if err != nil {
		return err
	}
	fmt.Printf("\nSlipway runs, one process for each service:\n")
	for _, p := range s.Processes() {
		fmt.Printf("  %-22s pid %-7d %s\n", p.Name, p.Pid(), p.LogFile)
	}
	fmt.Printf(`
  API          %s
  edge         %s and %s
  registry     %s
  credentials  %s

Ctrl-C stops all of it but the apps' containers, which the next run finds again; the
data stays in %s. slipway-dev -remove takes both away.
`, s.API, s.Edge, s.EdgeTLS, s.Registry, filepath.Join(s.Dir, "data", "credentials.json"), s.Dir)
	ended := make(chan *stack.Process, len(s.Processes()))
	for _, p := range s.Processes() {
		go func() {
			<-p.Ended()
			ended <- p
		}()
	}
	var failure error
	select {
	case <-ctx.Done():
	case p := <-ended:
		failure = fmt.Errorf("%s ended by itself\n%s", p.Name, p.Tail())
	}
	fmt.Println("\nstopping…")
	return errors.Join(failure, s.Close(ctx))
}
