package scheduler

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/metric"

	"github.com/slipway-paas/slipway/libs/eventstore"
)

// countUnreadable counts the events that following the log left out, since this
// program cannot read them: they make no rows and no dead letters.
func countUnreadable(m metric.Meter, store eventstore.Store) error {
	counting, ok := store.(interface{ Skipped() uint64 })
	if !ok {
		return nil
	}
	_, err := m.Int64ObservableCounter("slipway.events.unreadable", metric.WithDescription("Events left out that this program cannot read, each time they are met."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(counting.Skipped()))
			return nil
		}))
	if err != nil {
		return fmt.Errorf("count unreadable events: %w", err)
	}
	return nil
}
