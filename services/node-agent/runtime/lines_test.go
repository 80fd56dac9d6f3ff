package runtime_test

import (
	"slices"
	"testing"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

func TestLastLinesAreTextThatCanBeShown(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		"a\nb\n":             {"a", "b"},
		"before\x00after\n":  {"before\uFFFDafter"},
		"\x1b[31mred\x1b[0m": {"\uFFFD[31mred\uFFFD[0m"},
		"a\tb\r\nc":          {"a\tb", "c"},
		"bad \xff byte":      {"bad \uFFFD byte"},
		"":                   nil,
	} {
		if got := runtime.LastLines(in, 5, 1000); !slices.Equal(got, want) {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
