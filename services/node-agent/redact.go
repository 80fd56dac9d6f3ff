package nodeagent

import (
	"context"
	"strings"
	"unicode"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

const (
	redacted = "[redacted]"
	// shortestSecret is how long a value must be to be looked for: shorter ones are
	// words that stand everywhere.
	shortestSecret = 6
	// outputWindow is how much output is looked at to find the last lines: more than
	// is recorded, for what is redacted gets shorter.
	outputWindow = 64 << 10

	withheld = "The last lines are withheld: they may hold values of the app's environment, and the platform could not be asked which those are."
)

// lastLines is what a container said last, without the values of its environment:
// the log keeps for ever what it is told. The text is redacted as it was written, and
// only then cut and cleaned, or half of a value would be no value any more.
func (s *Service) lastLines(ctx context.Context, i *instance, want *nodev1.DesiredInstance, container string) []string {
	if want.GetHasEnv() && i.memory.env == nil {
		env, err := s.deps.Secrets.Env(ctx, s.cfg.NodeID, i.id)
		if err != nil {
			s.deps.Log.WarnContext(ctx, "the last lines of a container are withheld: its environment is not known",
				"container", container, "error", err)
			return []string{withheld}
		}
		i.memory.env = env
	}
	values := secretsOf(i.memory.env)
	longest := 0
	for _, v := range values {
		longest = max(longest, len(v))
	}
	output, err := s.deps.Runtime.Tail(ctx, container, outputWindow+longest)
	if err != nil {
		s.deps.Log.WarnContext(ctx, "the last lines of a container could not be read", "container", container, "error", err)
		return nil
	}
	from := 0
	if output.Cut { // a value may have begun before
		from = min(longest, len(output.Text))
	}
	return runtime.LastLines(redact(output.Text, from, values), lastLines, lastLinesBytes)
}

// secretsOf are the texts not to be recorded: every value, and every line of a value
// that has several, for an app may print one alone.
func secretsOf(env map[string]string) []string {
	var values []string
	add := func(text string) {
		text = strings.TrimSpace(text)
		if len(text) >= shortestSecret {
			values = append(values, text)
		}
	}
	for _, value := range env {
		add(value)
		for part := range strings.FieldsFuncSeq(value, unicode.IsControl) {
			if len(part) < len(value) {
				add(part)
			}
		}
	}
	return values
}

// redact returns the text from that place on without the values; one that lies across
// the place, or over another, is left out whole.
func redact(text string, from int, values []string) string {
	secret := make([]bool, len(text))
	for _, value := range values {
		marked := 0
		for at := 0; ; at++ {
			next := strings.Index(text[at:], value)
			if next < 0 {
				break
			}
			at += next
			for n := max(at, marked); n < at+len(value); n++ {
				secret[n] = true
			}
			marked = at + len(value)
		}
	}
	var out strings.Builder
	for n := from; n < len(text); n++ {
		switch {
		case !secret[n]:
			out.WriteByte(text[n])
		case n == from || !secret[n-1]:
			out.WriteString(redacted)
		}
	}
	return out.String()
}
