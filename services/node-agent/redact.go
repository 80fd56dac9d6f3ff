package nodeagent

import (
	"context"
	"slices"
	"strings"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
)

const (
	redacted = "[redacted]"
	// shortestSecret is how long a value must be to be looked for: shorter ones are
	// words that stand everywhere.
	shortestSecret = 6
	withheld       = "The last lines are withheld: they may hold values of the environment, which is not known here any more."
)

// lastLines is what a container said last, without the values of its environment:
// the log keeps for ever what it is told.
func (s *Service) lastLines(ctx context.Context, i *instance, want *nodev1.DesiredInstance, container string) []string {
	lines, err := s.deps.Runtime.Tail(ctx, container, lastLines, lastLinesBytes)
	if err != nil {
		s.deps.Log.WarnContext(ctx, "the last lines of a container could not be read", "container", container, "error", err)
	}
	if !want.GetHasEnv() || len(lines) == 0 {
		return lines
	}
	if i.memory.env == nil {
		env, err := s.deps.Secrets.Env(ctx, s.cfg.NodeID, i.id)
		if err != nil {
			return []string{withheld}
		}
		i.memory.env = env
	}
	return redact(lines, i.memory.env)
}

// redact replaces every value, and every line of a value that has several.
func redact(lines []string, env map[string]string) []string {
	var secrets []string
	for _, value := range env {
		for part := range strings.SplitSeq(value, "\n") {
			if part = strings.TrimSpace(part); len(part) >= shortestSecret {
				secrets = append(secrets, part)
			}
		}
	}
	// The longest first: one may be part of another.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	out := make([]string, len(lines))
	for n, line := range lines {
		for _, secret := range secrets {
			line = strings.ReplaceAll(line, secret, redacted)
		}
		out[n] = line
	}
	return out
}
