package main

import (
	"fmt"
	"slices"
	"time"
)

// spread is the median and 95th percentile of some durations.
type spread struct {
	median, p95 time.Duration
}

func spreadOf(durations []time.Duration) spread {
	if len(durations) == 0 {
		return spread{}
	}
	sorted := slices.Clone(durations)
	slices.Sort(sorted)
	at := func(q float64) time.Duration { return sorted[int(q*float64(len(sorted)-1)+0.5)] }
	return spread{median: at(0.5), p95: at(0.95)}
}

func middle(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	return sorted[len(sorted)/2]
}

func (s spread) String() string { return fmt.Sprintf("median %s, p95 %s", ms(s.median), ms(s.p95)) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// compare prints one figure with its anchor. bounds say what is asked for.
func compare(figure, ours, anchor string, ratio float64, bounds string) {
	fmt.Printf("%-44s %-34s beside %-34s %.2fx (%s)\n", figure, ours, anchor, ratio, bounds)
}

// say prints one figure that has no anchor.
func say(figure, ours, bounds string) {
	fmt.Printf("%-44s %-34s (%s)\n", figure, ours, bounds)
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
