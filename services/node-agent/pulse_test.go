package nodeagent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/node-agent/runtime/fake"
)

func TestARuntimeThatHangsShowsInTheReadiness(t *testing.T) {
	story(t, func(w *world) {
		w.run("a")
		w.wait(time.Hour)
		if err := w.agent.Ready(); err != nil {
			t.Fatal(err)
		}
		w.machine.SetFaults(fake.Faults{Hangs: true})
		w.wait(31 * time.Second)
		if err := w.agent.Ready(); err == nil || !strings.Contains(err.Error(), "does not answer since") {
			t.Fatalf("ready says %v", err)
		}
		w.wait(time.Hour)
		first := w.agent.Ready()
		w.machine.SetFaults(fake.Faults{})
		w.wait(31 * time.Second)
		if err := w.agent.Ready(); err != nil || first == nil {
			t.Fatalf("ready says %v, and before %v", err, first)
		}
		w.told()
	})
}
