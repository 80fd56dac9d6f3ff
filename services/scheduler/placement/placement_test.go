package placement_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/services/scheduler/placement"
)

func TestPlan(t *testing.T) {
	t.Parallel()
	two := []placement.Node{{ID: "a", MemoryMB: 1000, CPUMillicores: 1000}, {ID: "b", MemoryMB: 1000, CPUMillicores: 1000}}
	small := placement.Request{MemoryMB: 256, CPUMillicores: 250}
	for _, tc := range []struct {
		name   string
		nodes  []placement.Node
		used   map[string]placement.Use
		beside map[string]int
		count  int
		want   []string
		reason string
	}{
		{name: "no node at all", count: 1, reason: "No node is connected"},
		{name: "an even pair goes by name", nodes: two, count: 1, want: []string{"a"}},
		{name: "several spread", nodes: two, count: 4, want: []string{"a", "b", "a", "b"}},
		{name: "the emptier node first", nodes: two, used: map[string]placement.Use{"a": {MemoryMB: 256, CPUMillicores: 250}}, count: 1, want: []string{"b"}},
		{name: "the scarcer resource counts", nodes: two, count: 1, want: []string{"b"},
			used: map[string]placement.Use{"a": {MemoryMB: 0, CPUMillicores: 700}, "b": {MemoryMB: 400, CPUMillicores: 100}}},
		{name: "full in memory", nodes: two[:1], used: map[string]placement.Use{"a": {MemoryMB: 800}}, count: 1, reason: "at most 200 MB and 1000 millicores"},
		{name: "full in CPU", nodes: two[:1], used: map[string]placement.Use{"a": {CPUMillicores: 900}}, count: 1, reason: "100 millicores are free"},
		{name: "as many as there is room for", nodes: two[:1], count: 5, want: []string{"a", "a", "a"}, reason: "No node has room"},
		{name: "away from the others", nodes: two, used: map[string]placement.Use{"b": {MemoryMB: 512, CPUMillicores: 500}},
			beside: map[string]int{"a": 1}, count: 2, want: []string{"b", "a"}},
		{name: "cordoned nodes take nothing", nodes: []placement.Node{{ID: "a", MemoryMB: 1000, CPUMillicores: 1000, Unschedulable: true}}, count: 1, reason: "cordoned"},
		{name: "a node that shrank below its promises", nodes: two[:1], used: map[string]placement.Use{"a": {MemoryMB: 5000}}, count: 1, reason: "No node has room"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			request := small
			request.Beside = tc.beside
			got, reason := placement.Plan(tc.nodes, tc.used, request, tc.count)
			if !slices.Equal(got, tc.want) {
				t.Errorf("placed on %v, want %v", got, tc.want)
			}
			if !strings.Contains(reason, tc.reason) || (reason == "") != (tc.reason == "") {
				t.Errorf("reason %q, want it to say %q", reason, tc.reason)
			}
		})
	}
}
