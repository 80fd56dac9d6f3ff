// Package chaos kills the platform's processes with kill -9, one after the other,
// while clients create, restart, stop and destroy deployments, and holds what is left
// against what the clients were promised. A seed decides who dies, when, and what
// each client wants.
package chaos

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	clients = 3
	// slots are the names that one client deploys at.
	slots = 2
	steps = 4
	// lasts is the time in which clients begin what they do, aim how long before the
	// kill a command begins that is meant to be under way.
	lasts = 4 * time.Second
	aim   = 40 * time.Millisecond
)

// round is what happens from one quiet to the next.
type round struct {
	number int
	victim string
	// moment is from the round's beginning to the kill.
	moment time.Duration
	// down is how long the victim stays away, when somebody else has to start it.
	down time.Duration
	// again is from the first return to a second kill; 0 for none.
	again time.Duration
	// wants are each client's steps.
	wants [clients][]step
}

// step is one command of a client.
type step struct {
	// at is from the round's beginning.
	at   time.Duration
	slot int
	// choice, from 0 to 1, decides among what can be asked of the slot.
	choice float64
	// trace makes the command's events known again.
	trace [2]uint64
}

// plan is a pure function: any round can be played again without those before it.
// Each victim has its turn before one has its second.
func plan(seed uint64, setup string, victims []string, number int) round {
	turn := (number - 1) % len(victims)
	cycle := random(seed, setup, "cycle", (number-1)/len(victims))
	order := slices.Clone(victims)
	cycle.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })

	r := random(seed, setup, "round", number)
	out := round{
		number: number, victim: order[turn],
		moment: upTo(r, 2200*time.Millisecond), down: upTo(r, 1500*time.Millisecond),
	}
	if r.Float64() < 0.25 {
		out.again = time.Millisecond + upTo(r, 1200*time.Millisecond)
	}
	for c := range out.wants {
		for i := range steps {
			at := upTo(r, lasts)
			if i == 0 {
				// One command of each client is under way when the victim dies.
				at = max(0, out.moment-upTo(r, aim))
			}
			out.wants[c] = append(out.wants[c], step{
				at: at, slot: r.IntN(slots), choice: r.Float64(), trace: [2]uint64{r.Uint64() | 1, r.Uint64() | 1},
			})
		}
		slices.SortFunc(out.wants[c], func(a, b step) int { return cmp.Compare(a.at, b.at) })
	}
	return out
}

func upTo(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most))).Round(time.Millisecond)
}

func random(seed uint64, setup, what string, number int) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s/%d", setup, what, number)
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

func (r round) String() string {
	text := fmt.Sprintf("round %d: kill %s after %s", r.number, r.victim, r.moment)
	if r.again > 0 {
		text += fmt.Sprintf(", and again %s after its return", r.again)
	}
	return text
}
