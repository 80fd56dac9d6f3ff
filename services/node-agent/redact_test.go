package nodeagent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/services/node-agent/runtime/fake"
)

// recorded is what is recorded of a container with that environment that says the text.
func recorded(t *testing.T, env map[string]string, says string, check func([]string)) {
	t.Helper()
	story(t, func(w *world) {
		w.secrets.set(env, nil, false)
		w.run("a", withEnv)
		w.machine.Say(w.container(), says)
		w.machine.Crash(w.container(), 1)
		w.told()
		check(w.lines())
	})
}

func TestWhatAnAppPrintsOfItsEnvironmentIsNotRecorded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  map[string]string
		says string
		want []string
	}{
		"a value":                      {map[string]string{"KEY": "hunter22"}, "key=hunter22!\n", []string{"key=[redacted]!"}},
		"a short word":                 {map[string]string{"KEY": "line"}, "line 1\n", []string{"line 1"}},
		"a value of several lines":     {map[string]string{"KEY": "ab\ncd\nef\n"}, "<ab\ncd\nef\n>\n", []string{"<[redacted]", ">"}},
		"one line of a value":          {map[string]string{"KEY": "first line\nsecond line"}, "a second line\n", []string{"a [redacted]"}},
		"control characters":           {map[string]string{"KEY": "pass\x01wo\trd"}, "pass\x01wo\trd\n", []string{"[redacted]"}},
		"what is between tabs, quoted": {map[string]string{"KEY": "password\tsesame"}, `"password\tsesame"` + "\n", []string{`"[redacted]\t[redacted]"`}},
		"a value within another":       {map[string]string{"A": "secret", "B": "topsecretkey"}, "topsecretkey secret\n", []string{"[redacted] [redacted]"}},
		"values that overlap":          {map[string]string{"A": "abcdefgh", "B": "fghijklm"}, "abcdefghijklm.\n", []string{"[redacted]."}},
		"a value that overlaps itself": {map[string]string{"A": "xyxyxyx"}, "xyxyxyxyx.\n", []string{"[redacted]."}},
	} {
		t.Run(name, func(t *testing.T) {
			recorded(t, c.env, c.says, func(lines []string) {
				if want := append([]string{"listening"}, c.want...); !slices.Equal(lines, want) {
					t.Fatalf("recorded %q, want %q", lines, want)
				}
			})
		})
	}
}

func TestWhyAContainerDoesNotStartIsToldWithoutItsEnvironment(t *testing.T) {
	story(t, func(w *world) {
		w.secrets.set(map[string]string{"KEY": "injected"}, nil, false)
		w.machine.SetFaults(fake.Faults{FailStarts: 1})
		w.run("a", withEnv, attempts(1))
		failed, ok := w.facts.last().Payload.(*deploymentv1.ContainerStartFailed)
		if !ok || failed.GetReason() != "[redacted] fault" {
			t.Fatalf("recorded %v", w.facts.last().Payload)
		}
	})
}

// Whatever is cut off, be it by the number of lines, by their length or by how much is
// read, no part of a value may be left.
func TestNoPartOfAValueIsLeftWhereTheOutputIsCut(t *testing.T) {
	t.Parallel()
	key := "BEGIN\n" + strings.Repeat("k3y!\n", 40) + "END"
	var digits strings.Builder
	for n := range 1000 {
		fmt.Fprint(&digits, "3k", n) // no part is like another: a value may not cover for its neighbour
	}
	long := digits.String()
	for name, c := range map[string]struct{ value, says string }{
		"by lines":              {key, key + strings.Repeat("\nafter", 10) + "\n"},
		"by bytes":              {long, long + strings.Repeat(".", 6<<10) + "\n"},
		"by the window":         {long, long + strings.Repeat(".", 64<<10+100) + "\n"},
		"by the window, halved": {long, long + strings.Repeat(".\n", 32<<10+len(long)/4)},
		"with nothing else":     {long, strings.Repeat(long+" ", 40)},
		"a window of many":      {key, strings.Repeat(key+"\n", 2000)},
	} {
		t.Run(name, func(t *testing.T) {
			recorded(t, map[string]string{"KEY": c.value}, c.says, func(lines []string) {
				if len(lines) == 0 {
					t.Fatal("nothing is recorded")
				}
				for _, line := range lines {
					if strings.Contains(line, "3") {
						t.Fatalf("recorded %.200q", line)
					}
				}
			})
		})
	}
}

func TestAnAgentThatForgotTheEnvironmentAsksForItAgain(t *testing.T) {
	story(t, func(w *world) {
		w.secrets.set(map[string]string{"KEY": "listening"}, nil, false)
		w.run("a", withEnv)
		w.endAgent()
		w.startAgent()
		w.machine.Say(w.container(), "still here\n")
		w.machine.Crash(w.container(), 1)
		w.told()
		if got, want := w.lines(), []string{"[redacted]", "still here"}; !slices.Equal(got, want) {
			t.Fatalf("recorded %q, want %q", got, want)
		}
	})
}

func TestOutputIsWithheldWhenTheEnvironmentCannotBeAskedFor(t *testing.T) {
	for name, refused := range map[string]bool{"nobody answers": false, "the answer is no": true} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				w.secrets.set(map[string]string{"KEY": "listening"}, nil, false)
				w.run("a", withEnv)
				w.endAgent()
				w.startAgent()
				w.secrets.set(nil, errAway, refused)
				w.machine.Crash(w.container(), 1)
				w.told()
				if got := w.lines(); len(got) != 1 || !strings.HasPrefix(got[0], "The last lines are withheld:") {
					t.Fatalf("recorded %q", got)
				}
			})
		})
	}
}

// lines are those of the exit recorded last.
func (w *world) lines() []string {
	w.t.Helper()
	exited, ok := w.facts.last().Payload.(*deploymentv1.ContainerExited)
	if !ok {
		w.t.Fatalf("the last fact is %s", w.facts.last().Type())
	}
	return exited.GetLastLines()
}
