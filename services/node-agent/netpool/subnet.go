package netpool

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// subnetBits sizes one agent's subnet: 4093 containers.
const subnetBits = 20

// Subnets are within 10.90.0.0 to 10.99.255.255.
const subnetsFirst, subnetsSecond, subnetsSeconds = 10, 90, 10

// BridgeName derives a network interface's name (at most 15 characters) from who
// owns it, so that agents on one machine have different ones.
func BridgeName(prefix, owner string) string {
	sum := sha256.Sum256([]byte(owner))
	return prefix + hex.EncodeToString(sum[:4])
}

// FreeSubnet chooses a subnet within 10.90.0.0 to 10.99.255.255 that no route of the
// machine covers. The choice begins at a place derived from owner, so an agent finds
// the same one again; a subnet that bridge has already is kept.
func FreeSubnet(bridge, owner string) (netip.Prefix, error) {
	if link, err := netlink.LinkByName(bridge); err == nil {
		addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("read the addresses of %s: %w", bridge, err)
		}
		for _, a := range addresses {
			if p, ok := prefixOf(a.IPNet); ok {
				return p.Masked(), nil
			}
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("read the routes: %w", err)
	}
	var used []netip.Prefix
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && p.Bits() > 0 {
			used = append(used, p)
		}
	}
	sum := sha256.Sum256([]byte(owner))
	const each = 1 << (subnetBits - 16)
	start := binary.BigEndian.Uint32(sum[:4])
	for i := range uint32(subnetsSeconds * each) {
		n := (start + i) % (subnetsSeconds * each)
		candidate := netip.PrefixFrom(netip.AddrFrom4([4]byte{subnetsFirst, byte(subnetsSecond + n/each), byte(n % each << (24 - subnetBits)), 0}), subnetBits)
		if !overlapsAny(candidate, used) {
			return candidate, nil
		}
	}
	return netip.Prefix{}, errors.New("every subnet between 10.90.0.0 and 10.99.255.255 is in use")
}

func overlapsAny(p netip.Prefix, used []netip.Prefix) bool {
	for _, u := range used {
		if p.Overlaps(u) {
			return true
		}
	}
	return false
}
