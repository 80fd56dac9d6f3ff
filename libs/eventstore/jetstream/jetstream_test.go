package jetstream_test

import (
	"log/slog"
	"testing"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/eventstore/storetest"
	"github.com/slipway-paas/slipway/libs/internal/natstest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) eventstore.Store {
		return jetstream.New(natstest.Start(t).Events(), slog.New(slog.DiscardHandler))
	})
}
