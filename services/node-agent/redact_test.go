package nodeagent_test

import (
	"errors"
	"slices"
	"testing"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
)

func TestWhatAnAppPrintsOfItsEnvironmentIsNotRecorded(t *testing.T) {
	story(t, func(w *world) {
		w.secrets.set(map[string]string{"MODE": "exit", "CODE": "3", "LINES": "2", "KEY": "first\nline 2", "SHORT": "line"}, nil, false)
		w.run("a", withEnv)
		w.told()
		if got, want := w.lines(), []string{"listening", "line 1", "[redacted]"}; !slices.Equal(got, want) {
			t.Fatalf("recorded %q, want %q", got, want)
		}
	})
}

func TestAnAgentThatForgotTheEnvironmentAsksOrWithholds(t *testing.T) {
	story(t, func(w *world) {
		w.secrets.set(map[string]string{"KEY": "listening"}, nil, false)
		w.run("a", withEnv)
		w.told()
		w.endAgent()
		w.startAgent()
		w.told()
		w.secrets.set(nil, errors.New("the scheduler is away"), false)
		w.machine.Crash(w.container(), 1)
		w.told()
		if got := w.lines(); len(got) != 1 || got[0] == "listening" {
			t.Fatalf("recorded %q", got)
		}
	})
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
