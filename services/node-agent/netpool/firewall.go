package netpool

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ensureFirewall writes the agent's own nftables table, replacing it if it is there:
//
//   - what leaves the subnet for elsewhere gets the machine's address
//   - a container may answer the machine but not open connections to it, whatever
//     address its services listen on
//   - nothing but the machine itself opens connections to a container: neither
//     another agent's containers nor the outside
//   - no container reaches link-local addresses, where clouds keep their credentials
func ensureFirewall(bridge string, subnet netip.Prefix) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "slipway_" + bridge}
	// Adding before deleting makes the deletion succeed when there was none.
	conn.AddTable(table)
	conn.DelTable(table)
	table = conn.AddTable(table)

	postrouting := conn.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: postrouting, Exprs: join(
		fromSubnet(subnet), interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, bridge), []expr.Any{&expr.Masq{}},
	)})

	input := conn.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	fromBridge := interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, bridge)
	conn.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: join(fromBridge, answers(), verdict(expr.VerdictAccept))})
	conn.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: join(fromBridge, verdict(expr.VerdictDrop))})

	forward := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: join(fromBridge, toSubnet(linkLocal), verdict(expr.VerdictDrop))})
	toBridge := interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, bridge)
	conn.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: join(toBridge, answers(), verdict(expr.VerdictAccept))})
	conn.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: join(toBridge, verdict(expr.VerdictDrop))})

	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write the firewall of %s: %w", bridge, err)
	}
	return nil
}

func removeFirewall(bridge string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "slipway_" + bridge}
	conn.AddTable(table)
	conn.DelTable(table)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove the firewall of %s: %w", bridge, err)
	}
	return nil
}

func join(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func interfaceIs(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: padded}}
}

// linkLocal is RFC 3927's; cloud metadata services answer there.
var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// Where an IPv4 header has its addresses.
const sourceOffset, destinationOffset = 12, 16

func fromSubnet(subnet netip.Prefix) []expr.Any { return addressIn(sourceOffset, subnet) }

func toSubnet(subnet netip.Prefix) []expr.Any { return addressIn(destinationOffset, subnet) }

func addressIn(offset uint32, subnet netip.Prefix) []expr.Any {
	const length = 4
	mask := ipNet(subnet.Addr(), subnet.Bits()).Mask
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: mask, Xor: make([]byte, length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: subnet.Masked().Addr().AsSlice()},
	}
}

// answers matches packets of connections that are open already.
func answers() []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
			Xor:  binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}
