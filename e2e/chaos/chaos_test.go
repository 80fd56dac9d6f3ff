package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"
)

var (
	seedFlag   = flag.Uint64("seed", 1, "decides who is killed, when, and what clients want")
	roundsFlag = flag.Int("rounds", 5, "how many processes are killed, over all set-ups")
	firstFlag  = flag.Int("first", 1, "the first round of each set-up that is played")
)

func TestWhateverCrashesNothingPromisedIsLost(t *testing.T) {
	t.Parallel()
	for _, of := range setups() {
		t.Run(of.name, func(t *testing.T) {
			t.Parallel()
			suffer(t, of)
		})
	}
}

func suffer(t *testing.T, of setup) {
	begun := time.Now()
	o := of.options
	o.NodeMemoryMB, o.NodeCPUMillicores = 16<<10, 16_000
	o.Rollout = map[string]string{"drain": "300ms", "grace": "2s"}
	s, err := of.start(t.Context(), o)
	if err != nil {
		t.Fatalf("start the platform: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.Keep()
			t.Logf("%s\nthe data and all logs stay in %s", s.Tails(), s.Dir)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("take the platform away: %v", err)
		}
	})
	r, end, err := begin(t.Context(), s, of, *seedFlag)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	for number := *firstFlag; number <= of.rounds(*roundsFlag); number++ {
		line, err := r.play(t.Context(), number)
		var wrong *failed
		if errors.As(err, &wrong) {
			t.Fatalf("seed %d, %s, %v\n%s\nagain: make chaos SEED=%d ROUNDS=%d, or faster: %s", *seedFlag, of.name, wrong, wrong.story, *seedFlag, *roundsFlag,
				fmt.Sprintf("go test -count 1 ./e2e/chaos -run /%s -v -seed %d -rounds %d -first %d", of.name, *seedFlag, *roundsFlag, number))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Log(line)
	}
	t.Logf("seed %d, %s: %s; took %s", *seedFlag, of.name, r.figures(), time.Since(begun).Round(time.Second))
}
