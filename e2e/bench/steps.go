package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
)

// steps collects when each event of a deploy happened, counted from its first one:
// where the time goes.
type steps struct {
	order []string
	took  map[string][]time.Duration
}

// add reads the events of one deployment that runs.
func (s *steps) add(ctx context.Context, c *client.Client, id string) error {
	var first time.Time
	var failure error
	err := c.Follow(ctx, "/api/deploy/apps/"+id+"/events", "", func(e client.Event) bool {
		text, _ := e.JSON()["time"].(string)
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			failure = fmt.Errorf("read the time of %s: %w", e.Type, err)
			return true
		}
		if first.IsZero() {
			first = at
		}
		if !slices.Contains(s.order, e.Type) {
			s.order = append(s.order, e.Type)
		}
		s.took[e.Type] = append(s.took[e.Type], at.Sub(first))
		return e.Type == "DeploymentRunning"
	})
	if failure != nil {
		return failure
	}
	return err
}

// String is each step's median.
func (s *steps) String() string {
	parts := make([]string, 0, len(s.order))
	for _, step := range s.order {
		parts = append(parts, fmt.Sprintf("%s +%s", step, ms(spreadOf(s.took[step]).median)))
	}
	return strings.Join(parts, ", ")
}
