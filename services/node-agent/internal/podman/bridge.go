package podman

import (
	"context"
	"fmt"
	"strings"

	podmannet "github.com/containers/podman/v5/pkg/bindings/network"
	nettypes "go.podman.io/common/libnetwork/types"

	"github.com/slipway-paas/slipway/services/node-agent/netpool"
)

// ensureBridge makes the network that containers join when there is no pool. It is
// this agent's own, because Podman's default one has the same addresses in every
// Podman root of a machine.
func (p *Podman) ensureBridge(ctx context.Context) error {
	p.bridgeMu.Lock()
	defer p.bridgeMu.Unlock()
	if p.bridgeMade {
		return nil
	}
	exists, err := podmannet.Exists(ctx, p.bridge, nil)
	if err != nil {
		return fmt.Errorf("look for the bridge network: %w", err)
	}
	if !exists {
		name := netpool.BridgeName("slp", p.network)
		subnet, err := netpool.FreeSubnet(name, p.network)
		if err != nil {
			return fmt.Errorf("find addresses for the bridge network: %w", err)
		}
		parsed, err := nettypes.ParseCIDR(subnet.String())
		if err != nil {
			return fmt.Errorf("find addresses for the bridge network: %w", err)
		}
		if _, err := podmannet.Create(ctx, &nettypes.Network{
			Name: p.bridge, Driver: "bridge", NetworkInterface: name,
			Subnets: []nettypes.Subnet{{Subnet: parsed}},
		}); err != nil {
			return fmt.Errorf("make the bridge network: %w", err)
		}
	}
	p.bridgeMade = true
	return nil
}

// nameTaken recognizes Podman's answer to a second container of one name; it has
// no status of its own.
func nameTaken(err error) bool {
	return err != nil && strings.Contains(err.Error(), "already in use")
}
