package edge

import (
	"strings"

	"github.com/slipway-paas/slipway/libs/config"
)

// environment is ours without the daemon's own settings, which the edge would
// refuse as unknown ones.
func environment(ours []string) []string {
	theirs := make([]string, 0, len(ours))
	for _, entry := range ours {
		if !strings.HasPrefix(entry, config.EnvPrefix) || strings.HasPrefix(entry, "SLIPWAY_LOG_LEVEL=") {
			theirs = append(theirs, entry)
		}
	}
	return theirs
}
