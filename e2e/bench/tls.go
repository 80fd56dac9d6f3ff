package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

const (
	edgeModule = "github.com/slipway-paas/slipway/services/proxy-config/edge"
	tlsRuns    = 3
)

// tlsSection has the edge's own benchmark run, which brings a CA along.
func tlsSection(ctx context.Context, _ *bench) error {
	command := exec.CommandContext(ctx, "go", "test", edgeModule, "-run", "^$", "-bench", "FirstHandshakes", "-benchtime", "1x", "-count", strconv.Itoa(tlsRuns))
	command.Stderr = os.Stderr
	command.WaitDelay = 5 * time.Second
	out, err := command.Output()
	if err != nil {
		return fmt.Errorf("benchmark the edge's first handshakes: %w\n%s", err, out)
	}
	var took []time.Duration
	for _, line := range firstHandshakes.FindAllSubmatch(out, -1) {
		ns, err := strconv.ParseFloat(string(line[1]), 64)
		if err != nil {
			return fmt.Errorf("read what the benchmark printed: %w", err)
		}
		took = append(took, time.Duration(ns))
	}
	if len(took) != tlsRuns {
		return fmt.Errorf("the benchmark printed %d figures, not %d:\n%s", len(took), tlsRuns, out)
	}
	say("first TLS handshake of 50 new names at once", spreadOf(took).String(), "with Pebble under 5 s")
	return nil
}

var firstHandshakes = regexp.MustCompile(`(?m)^BenchmarkFirstHandshakes\S*\s+1\s+([0-9.]+) ns/op`)
