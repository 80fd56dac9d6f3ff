package main

import (
	"slices"
	"testing"
)

func TestWorkIsBusyInABurstAndIdleSomeTimeAfter(t *testing.T) {
	t.Parallel()
	var w work
	var total uint64
	var got []change
	for _, megabytes := range []uint64{1, 9, 20, 1, 1, 1, 1, 9, 1, 1, 1, 1, 1, 1, 1} {
		total += megabytes << 20
		got = append(got, w.seen(total))
	}
	want := []change{0, becameBusy, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, becameIdle, 0, 0}
	if !slices.Equal(got, want) {
		t.Errorf("changes = %v, want %v", got, want)
	}
}
