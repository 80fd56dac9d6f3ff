package netpool

import (
	"fmt"
	"net/netip"
	"os"

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
//   - nothing passes in IPv6, neither to the machine nor on: containers have none, and
//     should one get some, none of the above would hold for it
func ensureFirewall(bridge string, subnet netip.Prefix) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := freshTable(conn, nftables.TableFamilyIPv4, bridge)
	postrouting := conn.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: postrouting, Exprs: join(
		fromSubnet(subnet), interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, bridge), []expr.Any{&expr.Masq{}},
	)})

	input := filter(conn, table, "input", nftables.ChainHookInput)
	fromBridge := interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, bridge)
	conn.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: join(fromBridge, answers(), verdict(expr.VerdictAccept))})
	conn.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: join(fromBridge, verdict(expr.VerdictDrop))})

	forward := filter(conn, table, "forward", nftables.ChainHookForward)
	conn.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: join(fromBridge, toSubnet(linkLocal), verdict(expr.VerdictDrop))})
	toBridge := interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, bridge)
	conn.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: join(toBridge, answers(), verdict(expr.VerdictAccept))})
	conn.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: join(toBridge, verdict(expr.VerdictDrop))})

	if hasIPv6() {
		six := freshTable(conn, nftables.TableFamilyIPv6, bridge)
		input, forward := filter(conn, six, "input", nftables.ChainHookInput), filter(conn, six, "forward", nftables.ChainHookForward)
		conn.AddRule(&nftables.Rule{Table: six, Chain: input, Exprs: join(fromBridge, verdict(expr.VerdictDrop))})
		conn.AddRule(&nftables.Rule{Table: six, Chain: forward, Exprs: join(fromBridge, verdict(expr.VerdictDrop))})
		conn.AddRule(&nftables.Rule{Table: six, Chain: forward, Exprs: join(toBridge, verdict(expr.VerdictDrop))})
	}
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
	conn.DelTable(freshTable(conn, nftables.TableFamilyIPv4, bridge))
	if hasIPv6() {
		conn.DelTable(freshTable(conn, nftables.TableFamilyIPv6, bridge))
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove the firewall of %s: %w", bridge, err)
	}
	return nil
}

// freshTable is the bridge's table of that family, empty.
func freshTable(conn *nftables.Conn, family nftables.TableFamily, bridge string) *nftables.Table {
	table := &nftables.Table{Family: family, Name: "slipway_" + bridge}
	// Adding before deleting makes the deletion succeed when there was none.
	conn.AddTable(table)
	conn.DelTable(table)
	return conn.AddTable(table)
}

func filter(conn *nftables.Conn, table *nftables.Table, name string, hook *nftables.ChainHook) *nftables.Chain {
	return conn.AddChain(&nftables.Chain{
		Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter,
	})
}

// hasIPv6 is false on a kernel without IPv6, which knows no tables for it either.
func hasIPv6() bool {
	_, err := os.Stat(ipv6Settings)
	return err == nil
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
