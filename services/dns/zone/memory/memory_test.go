package memory_test

import (
	"testing"

	"github.com/slipway-paas/slipway/services/dns/zone"
	"github.com/slipway-paas/slipway/services/dns/zone/memory"
	"github.com/slipway-paas/slipway/services/dns/zonetest"
)

func TestItKeepsTheContract(t *testing.T) {
	t.Parallel()
	p := memory.New(nil, "other.test", "example.test")
	zonetest.Run(t, zonetest.Subject{
		Open: func(_ *testing.T, owner string) zone.Provider { return p.As(owner) }, Zone: "example.test", Tunnels: true,
	})
}
