// Bench measures the platform on this machine, each figure beside an anchor that
// was measured in the same run: what the parts alone can do. It talks only to the
// loopback address and its own bridges, and takes everything away again.
//
//	go run ./e2e/bench                 # everything
//	go run ./e2e/bench -only deploy    # one section, or several with commas between
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/slipway-paas/slipway/e2e/stack"
)

// section is one part of the bench; it has its own platform where it needs one.
type section struct {
	name  string
	about string
	limit time.Duration
	run   func(context.Context, *bench) error
}

func sections() []section {
	return []section{
		{"deploy", "POST to first 200, and starts at 8 at once, beside Podman alone", 5 * time.Minute, deploySection},
		{"many", "the same with 100 and 300 apps running", 15 * time.Minute, manySection},
		{"status", "GET status beside an in-memory handler", 3 * time.Minute, statusSection},
		{"authenticated", "GET status with a token beside the same without one", 3 * time.Minute, authenticatedSection},
		{"events", "appends and projected events beside raw JetStream", 3 * time.Minute, eventsSection},
		{"restarts", "20 restarts under constant requests", 5 * time.Minute, restartsSection},
		{"drops", "20 restarts, scale 1-3-1, a rollback and 200 other apps under every kind of request", 30 * time.Minute, dropsSection},
		{"tls", "first TLS handshakes of names that are new", 5 * time.Minute, tlsSection},
		{"rebuild", "the read model rebuilt from a long log, beside raw consume and COPY", 20 * time.Minute, rebuildSection},
		{"edge", "the edge beside plain Caddy and the app itself, with 10 to 50,000 hosts", 10 * time.Minute, edgeSection},
		{"memory", "idle memory at 0 and 100 apps", 5 * time.Minute, memorySection},
	}
}

// bench is what the sections share.
type bench struct {
	bin  string
	runs int
	many []int
	// events is how long the log of the section rebuild is.
	events int
}

func main() {
	os.Exit(run())
}

func run() int {
	all := sections()
	names := make([]string, 0, len(all))
	for _, s := range all {
		names = append(names, s.name)
	}
	only := flag.String("only", "", "sections to run, commas between: "+strings.Join(names, ", "))
	bin := flag.String("bin", "", "directory with the platform's binaries (default: the repository's bin)")
	runs := flag.Int("runs", 20, "deploys measured one after the other")
	events := flag.Int("events", 1_000_000, "events that are rebuilt")
	flag.Parse()
	wanted := names
	if *only != "" {
		wanted = strings.Split(*only, ",")
		for _, name := range wanted {
			if !slices.Contains(names, name) {
				fmt.Fprintf(os.Stderr, "bench: there is no section %q, only %s\n", name, strings.Join(names, ", "))
				return 2
			}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	b := &bench{bin: *bin, runs: max(*runs, 1), many: []int{100, 300}, events: max(*events, 1000)}
	code := 0
	for _, s := range all {
		if !slices.Contains(wanted, s.name) {
			continue
		}
		fmt.Printf("# %s: %s\n", s.name, s.about)
		limited, cancel := context.WithTimeout(ctx, s.limit)
		err := s.run(limited, b)
		cancel()
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", s.name, err)
			code = 1
		}
		if ctx.Err() != nil {
			return 1
		}
	}
	return code
}

// platform starts a platform for one section; the returned function takes it away.
func (b *bench) platform(ctx context.Context) (*stack.Stack, func(*error), error) {
	s, err := stack.Standalone(ctx, stack.Options{
		Bin: b.bin, Rollout: stack.Quick(), NodeMemoryMB: 400 << 10, NodeCPUMillicores: 400_000,
	})
	if err != nil {
		return nil, nil, err
	}
	return s, func(failure *error) {
		*failure = errors.Join(*failure, s.Close(ctx))
	}, nil
}
