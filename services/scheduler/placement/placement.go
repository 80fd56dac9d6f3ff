// Package placement decides which node takes an instance. Plan is pure: the same
// nodes, reservations and request give the same answer.
package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Node is a live node's share for instances. Memory in MB, CPU in millicores.
type Node struct {
	ID            string
	MemoryMB      uint32
	CPUMillicores uint32
	// Unschedulable nodes take nothing new.
	Unschedulable bool
}

// Use is what instances on a node have been promised.
type Use struct {
	MemoryMB      uint64
	CPUMillicores uint64
	Instances     uint64
}

// Request is what one instance needs.
type Request struct {
	MemoryMB      uint32
	CPUMillicores uint32
	// Beside is how many others of the same release are on each node, which it keeps
	// away from: a node that is lost shall take as few of them with it as can be.
	Beside map[string]int
}

// Plan gives each of count instances a node, as many as there is room for, spreading
// them: the node with the fewest beside, then by what stays free: the one whose scarcer
// resource stays emptiest, then the one with fewer promises, then by name. When one
// fits nowhere the reason says, for people, what is missing.
func Plan(nodes []Node, used map[string]Use, r Request, count int) (ids []string, reason string) {
	if len(nodes) == 0 {
		return nil, "No node is connected; it is placed as soon as one is."
	}
	taken, beside := maps.Clone(used), maps.Clone(r.Beside)
	if taken == nil {
		taken = map[string]Use{}
	}
	if beside == nil {
		beside = map[string]int{}
	}
	for range count {
		n, ok := best(nodes, taken, beside, r)
		if !ok {
			return ids, refusal(nodes, taken, r)
		}
		beside[n.ID]++
		u := taken[n.ID]
		u.MemoryMB += uint64(r.MemoryMB)
		u.CPUMillicores += uint64(r.CPUMillicores)
		taken[n.ID] = u
		ids = append(ids, n.ID)
	}
	return ids, ""
}

func best(nodes []Node, taken map[string]Use, beside map[string]int, r Request) (Node, bool) {
	fitting := slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return !fits(n, taken[n.ID], r) })
	if len(fitting) == 0 {
		return Node{}, false
	}
	return slices.MinFunc(fitting, func(a, b Node) int {
		return cmp.Or(
			cmp.Compare(beside[a.ID], beside[b.ID]),
			-cmp.Compare(headroom(a, taken[a.ID], r), headroom(b, taken[b.ID], r)),
			cmp.Compare(taken[a.ID].MemoryMB, taken[b.ID].MemoryMB),
			cmp.Compare(a.ID, b.ID),
		)
	}), true
}

func fits(n Node, u Use, r Request) bool {
	return !n.Unschedulable &&
		u.MemoryMB+uint64(r.MemoryMB) <= uint64(n.MemoryMB) &&
		u.CPUMillicores+uint64(r.CPUMillicores) <= uint64(n.CPUMillicores)
}

// headroom is the share of the scarcer resource that stays free, 0 to 1.
func headroom(n Node, u Use, r Request) float64 {
	memory := 1 - float64(u.MemoryMB+uint64(r.MemoryMB))/float64(n.MemoryMB)
	cpu := 1 - float64(u.CPUMillicores+uint64(r.CPUMillicores))/float64(n.CPUMillicores)
	return min(memory, cpu)
}

func refusal(nodes []Node, taken map[string]Use, r Request) string {
	var memory, cpu int64
	schedulable := 0
	for _, n := range nodes {
		if n.Unschedulable {
			continue
		}
		schedulable++
		memory = max(memory, int64(n.MemoryMB)-int64(taken[n.ID].MemoryMB))
		cpu = max(cpu, int64(n.CPUMillicores)-int64(taken[n.ID].CPUMillicores))
	}
	if schedulable == 0 {
		return "Every node is cordoned; it is placed as soon as one takes instances again."
	}
	return fmt.Sprintf("No node has room for %d MB and %d millicores: at most %d MB and %d millicores are free on one. It is placed as soon as room comes.",
		r.MemoryMB, r.CPUMillicores, memory, cpu)
}
