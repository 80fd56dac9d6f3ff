package main

import (
	"context"
	"fmt"

	"github.com/slipway-paas/slipway/e2e/drops"
)

// dropsSection is the long form of the scenarios' story of not one dropped request.
func dropsSection(ctx context.Context, b *bench) (err error) {
	s, done, err := b.platform(ctx)
	if err != nil {
		return err
	}
	defer done(&err)
	report, err := drops.Tell(ctx, s, drops.Options{Name: "drops", Restarts: 20, Others: 200})
	if report != nil {
		served, failed := report.Requests()
		say("failed requests", fmt.Sprintf("%d of %d", failed, served+failed), "must be 0")
		say("WebSockets and streams of others cut", fmt.Sprint(report.Cut), "must be 0")
		fmt.Print(report)
	}
	return err
}
